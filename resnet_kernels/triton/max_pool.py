"""max_pool_fwd: z = max over the window of act(scale * x + bias), and its tap r * S + s as uint8.
max_pool_bwd: each dz goes to its window's maximum; a pixel gathers them in the order of taps.

Both layouts. Pixels outside the image count as absent. The first maximum wins, NaN over everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import rounded, up
from .launch import launch
from .pooling import (
    BLOCK,
    SIZES,
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
from .tensors import Vector, cdiv, check_layout, require


@triton.jit(do_not_specialize=SIZES)
def _max_pool_fwd(
    x,
    scale,
    bias,
    z,
    indices,
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
    dil_h,
    dil_w,
    act,
    slope: tl.float64,
    NHWC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = start + tl.arange(0, BLOCK)
    keep = i < total
    n, c, p, q = element(start, C, P, Q, NHWC, BLOCK)
    best = tl.full((BLOCK,), -float("inf"), tl.float32).to(up(tl.load(x + i, mask=i < 0)).dtype)
    taken = tl.full((BLOCK,), -1, tl.int32)
    for tap in range(0, R * S):
        v, inside = tap_value(
            x, scale, bias, n, c, p, q, keep, tap, C, H, W, S, stride_h, stride_w, pad_h, pad_w,
            dil_h, dil_w, act, slope, NHWC,
        )  # fmt: skip
        # The first tap inside stands for a window of minus infinities.
        take = inside & ((v > best) | (v != v) | (taken < 0))
        best = tl.where(take, v, best)
        taken = tl.where(take, tap, taken)
    tl.store(z + i, rounded(best, z), mask=keep)
    tl.store(indices + i, taken.to(tl.uint8), mask=keep)


@triton.jit(do_not_specialize=SIZES)
def _max_pool_bwd(
    dz,
    indices,
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
    dil_h,
    dil_w,
    NHWC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = start + tl.arange(0, BLOCK)
    keep = i < total
    n, c, h, w = element(start, C, H, W, NHWC, BLOCK)
    acc = tl.zeros_like(up(tl.load(dz + i, mask=i < 0)))
    columns = windows_along(S, stride_w, dil_w)
    for step in range(0, windows_along(R, stride_h, dil_h) * columns):
        p, r, row_meets = window_over(h, step // columns, P, R, stride_h, pad_h, dil_h)
        q, s, column_meets = window_over(w, step % columns, Q, S, stride_w, pad_w, dil_w)
        meets = keep & row_meets & column_meets
        at = offset(n, c, p, q, C, P, Q, NHWC)
        here = tl.load(indices + at, mask=meets, other=0).to(tl.int32) == r * S + s
        acc += tl.where(here & meets, up(tl.load(dz + at, mask=meets, other=0.0)), 0.0)
    tl.store(dx + i, rounded(acc, dx), mask=keep)


def max_pool_fwd(
    x: Tensor,
    scale: Vector,
    bias: Vector,
    act: int,
    slope: float,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:
    window = window_of(kernel, stride, padding, dilation)
    nhwc = is_nhwc(x, "x")
    size = out_size(x, window, ceil_mode)
    require(kernel[0] * kernel[1] <= 255, "kernel: at most 255 taps")
    check_prologue(x, scale, bias)
    z, indices = empty_in(size, x, nhwc, x.dtype), empty_in(size, x, nhwc, torch.uint8)
    launch(
        _max_pool_fwd, cdiv(z.numel(), BLOCK), x, scale, bias, z, indices, z.numel(), *x.shape[1:],
        *size[2:], *window.numbers(), act, slope, NHWC=nhwc, BLOCK=BLOCK,
    )  # fmt: skip
    return z, indices


def max_pool_bwd(
    dz: Tensor,
    indices: Tensor,
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    window = window_of(kernel, stride, padding, dilation)
    nhwc = is_nhwc(dz, "dz")
    check_input_size(dz, input_size)
    require(indices.dtype == torch.uint8, "indices: expected uint8")
    check_layout(indices, dz, "indices")
    dx = empty_in(input_size, dz, nhwc, dz.dtype)
    launch(
        _max_pool_bwd, cdiv(dx.numel(), BLOCK), dz, indices, dx, dx.numel(), *input_size[1:],
        *dz.shape[2:], *window.numbers(), NHWC=nhwc, BLOCK=BLOCK,
    )  # fmt: skip
    return dx
