"""bn_bwd_apply: dy = A * g' + B * (y - mean) + C, g' = g * act'(scale * y + bias) where asked for.

g, y, dy lie in one layout and are walked in memory order; abc is [3, C].
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import INTERPRETED, apply_act_grad, flat_channels, rounded, up
from .launch import launch
from .tensors import Vector, both_or_none, cdiv, check_same, check_vectors, require, view_of

# 8 elements a thread: one 16-byte access of a 16-bit type.
BLOCK = 1 << 16 if INTERPRETED.value else 1024


@triton.jit(do_not_specialize=["total", "C", "inner", "act"])
def _bn_bwd_apply(
    g,
    y,
    mean,
    abc,
    scale,
    bias,
    dy,
    total,
    C,
    inner,
    act,
    slope: tl.float64,
    NHWC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = start + tl.arange(0, BLOCK)
    keep = i < total
    c = flat_channels(start, C, inner, NHWC, BLOCK)
    v = up(tl.load(y + i, mask=keep, other=0.0))
    grad = up(tl.load(g + i, mask=keep, other=0.0))
    if scale is not None:
        t = v * tl.load(scale + c) + tl.load(bias + c)
        grad = apply_act_grad(grad, t, act, slope)
    out = tl.load(abc + c) * grad + tl.load(abc + C + c) * (v - tl.load(mean + c))
    tl.store(dy + i, rounded(out + tl.load(abc + 2 * C + c), dy), mask=keep)


def bn_bwd_apply(
    g: Tensor,
    y: Tensor,
    mean: Tensor,
    abc: Tensor,
    scale: Vector,
    bias: Vector,
    act: int,
    slope: float,
) -> Tensor:
    view = view_of(y, "y")
    check_same(g, y, "g")
    check_vectors(y, view.channels, mean=mean, scale=scale, bias=bias)
    check_vectors(y, 3 * view.channels, abc=abc)
    both_or_none(scale, bias, "scale and bias")
    require(abc.dim() == 2, "abc: expected [3, C]")
    dy = torch.empty_like(y)
    args = (g, y, mean, abc, scale, bias, dy, y.numel(), view.channels, view.inner, act, slope)
    launch(_bn_bwd_apply, cdiv(y.numel(), BLOCK), *args, NHWC=view.nhwc, BLOCK=BLOCK)
    return dy
