"""GELU and SiLU in the implicit-GEMM kernels, value by value, by convolutions that only copy."""

from __future__ import annotations

import pytest
import torch
from activation_values import SMOOTH, check, inputs, slope, value
from bn_cases import IDENTITY, OPS
from igemm_cases import NONE, OPERANDS, PLAIN, VARIANTS, aligned
from torch import Tensor

from resnet_kernels import emulator

# Channels, filter and geometry by addressing; the middle tap of the filter is the identity.
COPIES = {
    "pointwise": (8, (1, 1), (0, 0)),
    "convolution": (8, (1, 3), (0, 1)),
    "gather": (5, (1, 3), (0, 1)),
}


@pytest.fixture(autouse=True)
def emulated():
    """Without races, which are other tests' matter."""
    with emulator.active(detect_races=False):
        yield


def pixels(size: tuple[int, ...], name: str) -> Tensor:
    """Inputs [1, H, W, C] as an activation."""
    return aligned(inputs(size, *OPERANDS[name]).permute(0, 3, 1, 2))


def identity(channels: int, taps: tuple[int, int], dtype: torch.dtype) -> Tensor:
    w = torch.zeros(channels, channels, *taps, dtype=dtype)
    w[:, :, taps[0] // 2, taps[1] // 2] = torch.eye(channels)
    return w.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_values(variant, act, monkeypatch):
    """In the epilogue, in the prologue, and the derivative in the gradient's epilogue."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    channels, taps, padding = COPIES[addressing]
    dtype, tf32 = OPERANDS[name]
    x, w, smooth = pixels((1, 16, 20, channels), name), identity(channels, taps, dtype), SMOOTH[act]
    geometry = ((1, 1), padding, (1, 1), 1, tf32)
    one, zero = torch.ones(channels), torch.zeros(channels)
    want = value(x, smooth)
    # A kernel with a prologue has an epilogue of its own.
    for before in (NONE, (one, zero, IDENTITY, 0.0)):
        y = OPS.conv_fwd(x, w, *before, None, None, None, smooth, 0.0, *geometry)
        check(y, want, want.abs(), dtype)
    y = OPS.conv_fwd(x, w, one, zero, smooth, 0.0, *PLAIN, *geometry)
    check(y, want, want.abs(), dtype, tf32)
    dy = torch.ones_like(x)
    g, _ = OPS.conv_dgrad_bn(dy, w, None, x, zero, one, one, zero, None, smooth, 0.0, *geometry)
    check(g, *slope(x, smooth), dtype)


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("size", [(64, 24), (128, 128), (62, 29), (64, 29)], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_values_in_the_filter_gradient(name, size, act):
    """dy picks one pixel for each row of dw."""
    rows, channels = size
    x, smooth = pixels((1, rows, 1, channels), name), SMOOTH[act]
    dy = aligned(torch.eye(rows, dtype=x.dtype).view(1, rows, 1, rows).permute(0, 3, 1, 2))
    w = torch.zeros(rows, channels, 1, 1)
    before = (torch.ones(channels), torch.zeros(channels), smooth, 0.0)
    dw = OPS.conv_wgrad(dy, x, w, *before, (1, 1), (0, 0), (1, 1), 1, OPERANDS[name][1])
    want = value(x.permute(0, 2, 3, 1).reshape(rows, channels), smooth)
    check(dw.view(rows, channels), want, want.abs(), *OPERANDS[name])
