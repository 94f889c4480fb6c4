"""GELU and SiLU value by value: inputs from where they vanish to where they are x, and the rule."""

from __future__ import annotations

import math

import torch
from bn_cases import GELU, SILU
from torch import Tensor

from resnet_kernels.reference import round_tf32

SMOOTH = {"gelu": GELU, "silu": SILU}
# Of a batch norm in front, so that what the functions are given has all digits of fp32.
SCALE = 0.7


def inputs(size: tuple[int, ...], dtype: torch.dtype, tf32: bool = False) -> Tensor:
    """Neighbours in the last dimension differ least."""
    values = torch.linspace(-13, 9, math.prod(size), dtype=torch.float64) / SCALE
    return rounded(values, dtype, tf32).view(size)


def scaled(x: Tensor) -> Tensor:
    """SCALE * x rounded to fp32, in fp64."""
    return (x.float() * SCALE).double()


def vectors(channels: int) -> tuple[Tensor, Tensor]:
    """Scale and bias, with which a batch norm's affine form rounds once."""
    return torch.full((channels,), SCALE), torch.zeros(channels)


def rounded(values: Tensor, dtype: torch.dtype, tf32: bool = False) -> Tensor:
    """To a dtype, and to what tensor cores multiply of fp32."""
    return round_tf32(values.to(dtype)) if tf32 else values.to(dtype)


def value(x: Tensor, act: int) -> Tensor:
    """Of scaled(x) in fp64, exact also where it is tiny."""
    x = scaled(x)
    return x * (torch.special.erfc(-x * 0.5**0.5) / 2 if act == GELU else torch.sigmoid(x))


def slope(x: Tensor, act: int) -> tuple[Tensor, Tensor]:
    """The derivative at scaled(x), and the size of its terms, which cancel at its zero."""
    x = scaled(x)
    if act == GELU:
        cdf = torch.special.erfc(-x * 0.5**0.5) / 2
        other = x * torch.exp(-x * x / 2) * (2 * torch.pi) ** -0.5
    else:
        cdf = torch.sigmoid(x)
        other = x * cdf * torch.sigmoid(-x)
    return cdf + other, cdf + other.abs()


def check(
    ours: Tensor, exact: Tensor, size: Tensor, dtype: torch.dtype, tf32: bool = False
) -> None:
    """Eight fp32 roundings of `size`, in front of that to 16 bits or tf32."""
    assert ours.shape == exact.shape
    most = 8 * torch.finfo(torch.float32).eps * size.clamp(min=1e-37)
    if dtype == torch.float32 and not tf32:
        assert ((ours.double() - exact).abs() < most).all()
        return
    least, greatest = (rounded(v, dtype, tf32) for v in (exact - most, exact + most))
    assert ((ours >= least) & (ours <= greatest)).all()
