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
    activated,
    check_input_size,
    check_prologue,
    element,
    empty_in,
    is_nhwc,
    offset,
    out_size,
    window_of,
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
        r = tap // S
        h = p * stride_h - pad_h + r
        w = q * stride_w - pad_w + tap - r * S
        inside = keep & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        at = offset(n, c, h, w, C, H, W, NHWC)
        v = activated(x, at, inside, c, keep, scale, bias, act, slope)
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
    # Windows that reach the pixel: their starts lie within R rows and S columns before it.
    reach_h = tl.cdiv(R, stride_h)
    reach_w = tl.cdiv(S, stride_w)
    last_p = (h + pad_h) // stride_h
    last_q = (w + pad_w) // stride_w
    for step in range(0, reach_h * reach_w):
        p = last_p - step // reach_w
        q = last_q - step % reach_w
        meets = keep & (p >= 0) & (p < P) & (q >= 0) & (q < Q)
        meets = meets & (h + pad_h < p * stride_h + R) & (w + pad_w < q * stride_w + S)
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
