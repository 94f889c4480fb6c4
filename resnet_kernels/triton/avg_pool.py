"""avg_pool_fwd: z = mean over the window of act(scale * x + bias); avg_pool_bwd: its gradient.

Both layouts. Sums go tap by tap in fp32 (fp64); the divisor counts padding as torch does.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..ops.fakes import pool_out_size
from .common import rounded, up
from .launch import launch
from .pooling import (
    BLOCK,
    SIZES,
    Window,
    check_input_size,
    check_prologue,
    element,
    empty_in,
    is_nhwc,
    offset,
    out_size,
    tap_value,
    window_of,
    window_over,
    windows_along,
)
from .tensors import Vector, cdiv, require

_ONE = (1, 1)


@triton.jit
def _extent(p, stride, pad, taps, size, COUNT_PAD: tl.constexpr):
    """Pixels of a window along a dimension that count; no padding beyond `pad` does."""
    start = p * stride - pad
    end = tl.minimum(start + taps, size + pad)
    if COUNT_PAD:
        return end - start
    else:
        return tl.minimum(end, size) - tl.maximum(start, 0)


@triton.jit(do_not_specialize=SIZES)
def _avg_pool_fwd(
    x,
    scale,
    bias,
    z,
    total,
    C,
    H,
    W,
    P,
    Q,
    R,
    S,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    act,
    slope: tl.float64,
    COUNT_PAD: tl.constexpr,
    NHWC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = start + tl.arange(0, BLOCK)
    keep = i < total
    n, c, p, q = element(start, C, P, Q, NHWC, BLOCK)
    acc = tl.zeros_like(up(tl.load(x + i, mask=i < 0)))
    for tap in range(0, R * S):
        v, inside = tap_value(
            x, scale, bias, n, c, p, q, keep, tap, C, H, W, S, stride_h, stride_w, pad_h, pad_w,
            1, 1, act, slope, NHWC,
        )  # fmt: skip
        acc += tl.where(inside, v, 0.0)
    count = _extent(p, stride_h, pad_h, R, H, COUNT_PAD)
    count = count * _extent(q, stride_w, pad_w, S, W, COUNT_PAD)
    tl.store(z + i, rounded(acc / count.to(acc.dtype), z), mask=keep)


@triton.jit(do_not_specialize=SIZES)
def _avg_pool_bwd(
    dz,
    dx,
    total,
    C,
    H,
    W,
    P,
    Q,
    R,
    S,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    COUNT_PAD: tl.constexpr,
    NHWC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = start + tl.arange(0, BLOCK)
    keep = i < total
    n, c, h, w = element(start, C, H, W, NHWC, BLOCK)
    acc = tl.zeros_like(up(tl.load(dz + i, mask=i < 0)))
    columns = windows_along(S, stride_w, 1)
    for step in range(0, windows_along(R, stride_h, 1) * columns):
        p, _, row_meets = window_over(h, step // columns, P, R, stride_h, pad_h, 1)
        q, _, column_meets = window_over(w, step % columns, Q, S, stride_w, pad_w, 1)
        meets = keep & row_meets & column_meets
        count = _extent(p, stride_h, pad_h, R, H, COUNT_PAD)
        count = count * _extent(q, stride_w, pad_w, S, W, COUNT_PAD)
        v = up(tl.load(dz + offset(n, c, p, q, C, P, Q, NHWC), mask=meets, other=0.0))
        acc += tl.where(meets, v / count.to(acc.dtype), 0.0)
    tl.store(dx + i, rounded(acc, dx), mask=keep)


def _window(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Window:
    return window_of(kernel, stride, padding, _ONE)


def avg_pool_fwd(
    x: Tensor,
    scale: Vector,
    bias: Vector,
    act: int,
    slope: float,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    window = _window(kernel, stride, padding)
    nhwc = is_nhwc(x, "x")
    size = out_size(x, window, ceil_mode)
    check_prologue(x, scale, bias)
    z = empty_in(size, x, nhwc, x.dtype)
    launch(
        _avg_pool_fwd, cdiv(z.numel(), BLOCK), x, scale, bias, z, z.numel(), *x.shape[1:],
        *size[2:], *window.numbers()[:6], act, slope,
        COUNT_PAD=count_include_pad, NHWC=nhwc, BLOCK=BLOCK,
    )  # fmt: skip
    return z


def avg_pool_bwd(
    dz: Tensor,
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    window = _window(kernel, stride, padding)
    nhwc = is_nhwc(dz, "dz")
    check_input_size(dz, input_size)
    expected = pool_out_size(input_size, *window, ceil_mode)
    require(expected == list(dz.shape), "dz: size does not fit input_size")
    dx = empty_in(input_size, dz, nhwc, dz.dtype)
    launch(
        _avg_pool_bwd, cdiv(dx.numel(), BLOCK), dz, dx, dx.numel(), *input_size[1:],
        *dz.shape[2:], *window.numbers()[:6], COUNT_PAD=count_include_pad, NHWC=nhwc, BLOCK=BLOCK,
    )  # fmt: skip
    return dx
