"""bn_act_fwd, bn_act_fwd_mask: z = act(scale * y + bias [+ residual | + scale2 * y2 + bias2]).

y, residual, z lie in one layout and are walked in memory order; mask has a bit for each element in
that order, lowest bit first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import INTERPRETED, apply_act, flat_channels, rounded, up
from .launch import launch
from .tensors import Vector, both_or_none, cdiv, check_same, check_vectors, require, view_of

# 8 elements a thread: one 16-byte access of a 16-bit type, one byte of the mask.
BLOCK = 1 << 16 if INTERPRETED.value else 1024


@triton.jit(do_not_specialize=["total", "C", "inner", "act"])
def _bn_act_fwd(
    y,
    scale,
    bias,
    residual,
    scale2,
    bias2,
    z,
    mask,
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
    t = up(tl.load(y + i, mask=keep, other=0.0))
    t = t * tl.load(scale + c) + tl.load(bias + c)
    if residual is not None:
        r = up(tl.load(residual + i, mask=keep, other=0.0))
        if scale2 is not None:
            r = r * tl.load(scale2 + c) + tl.load(bias2 + c)
        t += r
    if mask is not None:
        bits = tl.reshape((keep & (t > 0)).to(tl.int32), (BLOCK // 8, 8))
        byte = tl.sum(bits << tl.arange(0, 8)[None, :], 1).to(tl.uint8)
        j = start // 8 + tl.arange(0, BLOCK // 8)
        tl.store(mask + j, byte, mask=j * 8 < total)
    tl.store(z + i, rounded(apply_act(t, act, slope), z), mask=keep)


def _run(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Vector,
    scale2: Vector,
    bias2: Vector,
    act: int,
    slope: float,
    mask: Vector,
) -> Tensor:
    view = view_of(y, "y")
    check_vectors(y, view.channels, scale=scale, bias=bias, scale2=scale2, bias2=bias2)
    both_or_none(scale2, bias2, "scale2 and bias2")
    require(scale2 is None or residual is not None, "scale2: needs residual")
    if residual is not None:
        check_same(residual, y, "residual")
    z = torch.empty_like(y)
    args = (y, scale, bias, residual, scale2, bias2, z, mask)
    sizes = (y.numel(), view.channels, view.inner, act, slope)
    launch(_bn_act_fwd, cdiv(y.numel(), BLOCK), *args, *sizes, NHWC=view.nhwc, BLOCK=BLOCK)
    return z


def bn_act_fwd(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Vector,
    scale2: Vector,
    bias2: Vector,
    act: int,
    slope: float,
) -> Tensor:
    return _run(y, scale, bias, residual, scale2, bias2, act, slope, None)


def bn_act_fwd_mask(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Vector,
    scale2: Vector,
    bias2: Vector,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor]:
    mask = torch.empty((y.numel() + 7) // 8, dtype=torch.uint8, device=y.device)
    return _run(y, scale, bias, residual, scale2, bias2, act, slope, mask), mask
