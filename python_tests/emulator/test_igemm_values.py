"""GELU and SiLU in the implicit-GEMM kernels, value by value, by convolutions that only copy."""

from __future__ import annotations

import pytest
import torch
from bn_cases import GELU, OPS, SILU
from igemm_cases import NONE, OPERANDS, PLAIN, VARIANTS, aligned
from torch import Tensor

from resnet_kernels import emulator
from resnet_kernels.reference import round_tf32

# Channels, filter and geometry by addressing; the middle tap of the filter is the identity.
COPIES = {
    "pointwise": (8, (1, 1), (0, 0)),
    "convolution": (8, (1, 3), (0, 1)),
    "gather": (5, (1, 3), (0, 1)),
}
# Of values that are rounded once more, how many may fall to the other side: those that lie within a
# few fp32 roundings of a tie, 1 of 500 in fp16.
OTHER_SIDE = 1 / 250


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    with emulator.active(detect_races=False):
        yield


def pixels(channels: int, name: str) -> Tensor:
    """[1, channels, 16, 20], from where both functions nearly vanish to where both are x."""
    values = torch.linspace(-13, 9, channels * 320, dtype=torch.float64)
    x = in_operands(values, name).view(1, 16, 20, channels)
    return aligned(x.permute(0, 3, 1, 2))


def in_operands(values: Tensor, name: str) -> Tensor:
    """Rounded to what a tensor core multiplies."""
    rounded = values.to(OPERANDS[name][0])
    return round_tf32(rounded) if OPERANDS[name][1] else rounded


def identity(channels: int, taps: tuple[int, int], name: str) -> Tensor:
    w = torch.zeros(channels, channels, *taps, dtype=OPERANDS[name][0])
    w[:, :, taps[0] // 2, taps[1] // 2] = torch.eye(channels)
    return w.contiguous(memory_format=torch.channels_last)


def value(x: Tensor, act: int) -> Tensor:
    """In fp64, exact also where it is tiny."""
    return x * (torch.special.erfc(-x * 0.5**0.5) / 2 if act == GELU else torch.sigmoid(x))


def slope(x: Tensor, act: int) -> tuple[Tensor, Tensor]:
    """The derivative in fp64, and the size of its terms, which cancel at its zero."""
    if act == GELU:
        cdf = torch.special.erfc(-x * 0.5**0.5) / 2
        other = x * torch.exp(-x * x / 2) * (2 * torch.pi) ** -0.5
    else:
        cdf = torch.sigmoid(x)
        other = x * cdf * torch.sigmoid(-x)
    return cdf + other, cdf + other.abs()


def check(ours: Tensor, exact: Tensor, size: Tensor, name: str, rounded: bool) -> None:
    """Eight fp32 roundings of `size`; then, if rounded, to the operands' type, to nearest."""
    if not rounded:
        error = (ours.double() - exact).abs() / size.clamp(min=1e-37)
        assert error.max() < 8 * torch.finfo(torch.float32).eps
        return
    want = in_operands(exact, name)
    assert (ours.double() - exact).abs().le(want.double().abs() * 2.0**-7 + 1e-7).all()
    assert (ours != want).double().mean() < OTHER_SIDE


@pytest.mark.parametrize("act", [GELU, SILU], ids=["gelu", "silu"])
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_values(variant, act, monkeypatch):
    """In the epilogue, in the prologue, and the derivative in the gradient's epilogue."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    channels, taps, padding = COPIES[addressing]
    x, w = pixels(channels, name), identity(channels, taps, name)
    geometry = ((1, 1), padding, (1, 1), 1, OPERANDS[name][1])
    one, zero = torch.ones(channels), torch.zeros(channels)
    want = value(x.double(), act)
    fp32 = OPERANDS[name][0] == torch.float32
    y = OPS.conv_fwd(x, w, *NONE, None, None, None, act, 0.0, *geometry)
    check(y, want, want.abs(), name, not fp32)
    y = OPS.conv_fwd(x, w, one, zero, act, 0.0, *PLAIN, *geometry)
    check(y, want, want.abs(), name, name != "fp32")
    dy = torch.ones_like(x)
    g, _ = OPS.conv_dgrad_bn(dy, w, None, x, zero, one, one, zero, None, act, 0.0, *geometry)
    check(g, *slope(x.double(), act), name, not fp32)


@pytest.mark.parametrize("act", [GELU, SILU], ids=["gelu", "silu"])
@pytest.mark.parametrize("size", [(64, 24), (128, 128), (62, 29)], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_values_in_the_filter_gradient(name, size, act):
    """dy picks one pixel for each row of dw."""
    rows, channels = size
    values = torch.linspace(-13, 9, rows * channels, dtype=torch.float64)
    x = aligned(in_operands(values, name).view(1, rows, 1, channels).permute(0, 3, 1, 2))
    dy = aligned(torch.eye(rows, dtype=x.dtype).view(1, rows, 1, rows).permute(0, 3, 1, 2))
    w = torch.zeros(rows, channels, 1, 1)
    before = (torch.ones(channels), torch.zeros(channels), act, 0.0)
    dw = OPS.conv_wgrad(dy, x, w, *before, (1, 1), (0, 0), (1, 1), 1, OPERANDS[name][1])
    want = value(values_of(x), act)
    check(dw.view(rows, channels), want, want.abs(), name, name != "fp32")


def values_of(x: Tensor) -> Tensor:
    """[pixels, channels] in fp64."""
    return x.double().permute(0, 2, 3, 1).reshape(-1, x.shape[1])
