"""GELU and SiLU in the implicit-GEMM kernels, value by value, by convolutions that only copy."""

from __future__ import annotations

import pytest
import torch
from activation_values import SMOOTH, check, inputs, slope, value, vectors
from bn_cases import IDENTITY, OPS
from igemm_cases import NONE, OPERANDS, PLAIN, VARIANTS, aligned
from torch import Tensor

from resnet_kernels import emulator

# Channels and taps by addressing; the first tap of the filter is the identity, and its channels
# take two chunks of depth, as nvcc compiles a prologue once for the first and once for the others.
COPIES = {"pointwise": (72, 1), "convolution": (72, 3), "window": (75, 1), "gather": (75, 3)}
WIDTH = 40


@pytest.fixture(autouse=True)
def emulated():
    """Without races, which are other tests' matter."""
    with emulator.active(detect_races=False):
        yield


def pixels(size: tuple[int, ...], name: str) -> Tensor:
    """Inputs [1, H, W, C] as an activation."""
    return aligned(inputs(size, *OPERANDS[name]).permute(0, 3, 1, 2))


def identity(channels: int, taps: int, dtype: torch.dtype) -> Tensor:
    w = torch.zeros(channels, channels, 1, taps, dtype=dtype)
    w[:, :, 0, 0] = torch.eye(channels)
    return w.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_values(variant, act, monkeypatch):
    """In the epilogue, in the prologue, and the derivative in the gradient's epilogue."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    channels, taps = COPIES[addressing]
    dtype, tf32 = OPERANDS[name]
    step = 2 if addressing == "gather" else 1
    x = pixels((1, 1, WIDTH + step * (taps - 1), channels), name)
    w = identity(channels, taps, dtype)
    smooth, geometry = SMOOTH[act], ((1, 1), (0, 0), (1, step), 1, tf32)
    scale, zero = vectors(channels)
    one, seen = torch.ones(channels), x[..., :WIDTH]
    want = value(seen, smooth)
    # A kernel with a prologue has an epilogue of its own.
    for before in (NONE, (one, zero, IDENTITY, 0.0)):
        y = OPS.conv_fwd(x, w, *before, scale, None, None, smooth, 0.0, *geometry)
        check(y, want, want.abs(), dtype)
    y = OPS.conv_fwd(x, w, scale, zero, smooth, 0.0, *PLAIN, *geometry)
    check(y, want, want.abs(), dtype, tf32)
    dy = torch.ones_like(seen)
    g, _ = OPS.conv_dgrad_bn(dy, w, None, x, zero, one, scale, zero, None, smooth, 0.0, *geometry)
    check(g[..., :WIDTH], *slope(seen, smooth), dtype)


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("size", [(64, 24), (128, 128), (62, 29), (64, 29)], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_values_in_the_filter_gradient(name, size, act):
    """dy picks one pixel for each row of dw."""
    rows, channels = size
    x, smooth = pixels((1, rows, 1, channels), name), SMOOTH[act]
    dy = aligned(torch.eye(rows, dtype=x.dtype).view(1, rows, 1, rows).permute(0, 3, 1, 2))
    w = torch.zeros(rows, channels, 1, 1)
    before = (*vectors(channels), smooth, 0.0)
    dw = OPS.conv_wgrad(dy, x, w, *before, (1, 1), (0, 0), (1, 1), 1, OPERANDS[name][1])
    want = value(x.permute(0, 2, 3, 1).reshape(rows, channels), smooth)
    check(dw.view(rows, channels), want, want.abs(), *OPERANDS[name])
