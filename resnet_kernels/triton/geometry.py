"""Shapes, layouts and tiles of the convolution kernels, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.fakes import conv_out_size
from .tensors import (
    FLOATS,
    Vector,
    both_or_none,
    check_act,
    check_vectors,
    is_channels_last,
    require,
)

IDENTITY = 0
# The arguments Geometry.numbers() that are no reason to compile a kernel anew. The channel counts
# are: a multiple of 16 makes 16-byte accesses.
SIZES = [
    *("M", "P", "Q", "H", "W", "R", "S", "stride_h", "stride_w", "pad_h", "pad_w", "dil_h"),
    "dil_w",
]


class Geometry(NamedTuple):
    """[N, C, H, W] * [K, C / groups, R, S] -> [N, K, P, Q]."""

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    p: int
    q: int
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    @property
    def pixels(self) -> int:
        """Rows of the output."""
        return self.n * self.p * self.q

    @property
    def columns(self) -> int:
        """Filters of a group."""
        return self.k // self.groups

    @property
    def depth(self) -> int:
        """Input channels of a group."""
        return self.c // self.groups

    def numbers(self) -> tuple[int, ...]:
        """M, P, Q, H, W, C, depth, K, columns, R, S, stride, padding, dilation: for a kernel."""
        sizes = (self.pixels, self.p, self.q, self.h, self.w, self.c, self.depth, self.k)
        window = (*self.stride, *self.padding, *self.dilation)
        return (*sizes, self.columns, self.r, self.s, *window)


def geometry_of(
    size: Sequence[int],
    w: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Geometry:
    require(len(size) == 4 and w.dim() == 4, "x and w: expected 4 dimensions")
    require(
        all(len(pair) == 2 for pair in (stride, padding, dilation)),
        "stride, padding, dilation: expected two values",
    )
    require(
        min(*stride, *dilation) > 0 and min(padding) >= 0,
        "stride and dilation must be positive, padding not negative",
    )
    require(
        groups > 0 and w.shape[0] % groups == 0 and w.shape[1] * groups == size[1],
        f"w: expected {size[1]} / groups input channels, got {w.shape[1]}",
    )
    out = conv_out_size(size, w.shape, stride, padding, dilation)
    k, _, r, s = w.shape
    p, q = max(out[2], 0), max(out[3], 0)
    n, c, h, width = size
    return Geometry(n, c, h, width, k, r, s, p, q, stride, padding, dilation, groups)


def nhwc(t: Tensor, name: str) -> Tensor:
    """t in channels_last: itself if it lies so."""
    require(t.dtype in FLOATS, f"{name}: expected float32, float64, float16 or bfloat16")
    return t if is_channels_last(t) else t.contiguous(memory_format=torch.channels_last)


def filter_krsc(w: Tensor, like: Tensor) -> Tensor:
    """[K, C / groups, R, S] in the dtype of the activations, lying as [K, R, S, C / groups].

    A copy for fp32 parameters of 16-bit activations: small beside the activations, and tiles of it
    are then copied to shared memory as they are.
    """
    require(w.device == like.device, "w: device differs")
    require(w.dtype in FLOATS, "w: expected float32, float64, float16 or bfloat16")
    if w.dtype != like.dtype:
        w = w.to(like.dtype)
    return w if is_channels_last(w) else w.contiguous(memory_format=torch.channels_last)


def check_output(y: Tensor, g: Geometry, name: str) -> None:
    size = (g.n, g.k, g.p, g.q)
    require(tuple(y.shape) == size, f"{name}: not the size of the convolution's output {size}")


def check_format(t: Tensor, layout: torch.memory_format, name: str) -> None:
    require(t.is_contiguous(memory_format=layout), f"{name}: memory layout differs")


def check_prologue(x: Tensor, scale: Vector, bias: Vector, act: int) -> None:
    check_act(act)
    both_or_none(scale, bias, "in_scale and in_bias")
    check_vectors(x, x.shape[1], in_scale=scale, in_bias=bias)


def prologue_act(scale: Vector, act: int) -> int:
    return IDENTITY if scale is None else act


def use_tf32(x: Tensor, tf32: bool) -> bool:
    return tf32 and x.dtype == torch.float32
