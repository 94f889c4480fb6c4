"""What the pooling kernels share: windows, layouts, elements in memory order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops.fakes import pool_out_size
from .common import INTERPRETED, apply_act, round_to, up
from .tensors import Vector, both_or_none, check_vectors, is_contiguous, require, view_of

# One element a thread and window: the windows' overlap is served by the cache.
BLOCK = 1 << 14 if INTERPRETED.value else 256
# Arguments that are no reason to compile a kernel anew.
SIZES = [
    *("total", "C", "H", "W", "P", "Q", "R", "S", "stride_h", "stride_w", "pad_h", "pad_w"),
    *("dil_h", "dil_w", "act"),
]


@triton.jit
def element(start, C, H, W, NHWC: tl.constexpr, BLOCK: tl.constexpr):
    """n, c, h, w of the elements start ... start + BLOCK - 1 of [N, C, H, W] in memory order."""
    n = start // (C * H * W)
    i = (start - n * C * H * W).to(tl.int32) + tl.arange(0, BLOCK)
    image = i // (C * H * W)
    i -= image * C * H * W
    if NHWC:
        pixel = i // C
        c = i - pixel * C
        h = pixel // W
        w = pixel - h * W
    else:
        c = i // (H * W)
        pixel = i - c * H * W
        h = pixel // W
        w = pixel - h * W
    return n + image, c, h, w


@triton.jit
def offset(n, c, h, w, C, H, W, NHWC: tl.constexpr):
    """Where element (n, c, h, w) of [N, C, H, W] lies."""
    if NHWC:
        return n * C * H * W + ((h * W + w) * C + c)
    else:
        return n * C * H * W + ((c * H + h) * W + w)


@triton.jit
def tap_value(
    x, scale, bias, n, c, p, q, keep, tap, C, H, W, S, stride_h, stride_w, pad_h, pad_w, dil_h,
    dil_w, act, slope, NHWC: tl.constexpr,
):  # fmt: skip
    """What a tap of the windows (n, c, p, q) reads, and whether it lies in the image.

    act(scale * x + bias), rounded to x's dtype where there is something to do, and widened.
    """
    r = tap // S
    h = p * stride_h - pad_h + r * dil_h
    w = q * stride_w - pad_w + (tap - r * S) * dil_w
    inside = keep & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    raw = tl.load(x + offset(n, c, h, w, C, H, W, NHWC), mask=inside, other=0.0)
    if scale is not None:
        t = up(raw) * tl.load(scale + c, mask=keep, other=0.0)
        raw = round_to(
            apply_act(t + tl.load(bias + c, mask=keep, other=0.0), act, slope), raw.dtype
        )
    return up(raw), inside


@triton.jit
def windows_along(taps, stride, dil):
    """Most windows that reach over a pixel along a dimension."""
    return tl.cdiv((taps - 1) * dil + 1, stride)


@triton.jit
def window_over(pixel, back, size, taps, stride, pad, dil):
    """A window over a pixel along a dimension, `back` before the last that starts before it.

    Its place, which tap of it the pixel is, and whether there is such a window. Counted backwards,
    windows come in the order of their taps.
    """
    window = (pixel + pad) // stride - back
    apart = pixel + pad - window * stride
    tap = apart // dil
    return window, tap, (window >= 0) & (window < size) & (tap < taps) & (apart == tap * dil)


class Window(NamedTuple):
    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]

    def numbers(self) -> tuple[int, ...]:
        return (*self.kernel, *self.stride, *self.padding, *self.dilation)


def window_of(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Window:
    require(
        all(len(pair) == 2 for pair in (kernel, stride, padding, dilation)),
        "kernel, stride, padding, dilation: expected 2 values each",
    )
    step = [s or k for s, k in zip(stride, kernel, strict=True)]
    require(
        min(*kernel, *step, *dilation) > 0 and min(padding) >= 0,
        "kernel, stride, dilation: expected positive values; padding: not negative",
    )
    return Window(kernel, step, padding, dilation)


def is_nhwc(t: Tensor, name: str) -> bool:
    """The layout kernels work in, that of the other side too; NCHW where t fits both."""
    view_of(t, name)
    image = t.numel() // t.shape[0] if t.shape[0] else 0
    require(image < 2**30, f"{name}: expected images of fewer than 2^30 elements, got {image}")
    return not is_contiguous(t)


def out_size(x: Tensor, window: Window, ceil_mode: bool) -> list[int]:
    spans = zip(x.shape[2:], window.kernel, window.padding, window.dilation, strict=True)
    require(
        all(size + 2 * pad > dil * (k - 1) for size, k, pad, dil in spans),
        "kernel: larger than the padded input",
    )
    return pool_out_size(x.shape, *window, ceil_mode)


def check_prologue(x: Tensor, scale: Vector, bias: Vector) -> None:
    both_or_none(scale, bias, "scale and bias")
    check_vectors(x, x.shape[1], scale=scale, bias=bias)


def check_input_size(dz: Tensor, size: Sequence[int]) -> None:
    require(len(size) == 4, "input_size: expected 4 values")
    require(
        tuple(size[:2]) == tuple(dz.shape[:2]) and min(size[2:]) >= 0,
        "input_size: expected N and C of dz",
    )


def empty_in(size: Sequence[int], like: Tensor, nhwc: bool, dtype: torch.dtype) -> Tensor:
    layout = torch.channels_last if nhwc else torch.contiguous_format
    return torch.empty(list(size), dtype=dtype, device=like.device, memory_format=layout)
