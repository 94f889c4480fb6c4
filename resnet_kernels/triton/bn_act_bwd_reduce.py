"""bn_act_bwd_reduce, _add, _dual: g = dz * act'(t) and the sums [2, C] of g and of g * xhat.

t is recomputed from y (and the residual or the second batch norm), or its sign is read from a mask.
_add and _dual store g, and sum it as stored.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .chunks import chunks_of
from .common import (
    apply_act_grad,
    channel_offsets,
    mask_bits,
    rounded,
    row_offsets,
    up,
)
from .launch import DEFAULT, Config, launch
from .partials import merge_sums
from .tensors import Vector, check_mask, check_same, check_vectors, stats_like, view_of

# A third sum and two more vectors: half as many elements a thread, or registers are spilled.
DUAL = Config(warps=8)


@triton.jit
def _pre_act(t, at, c, keep, y2, scale2, bias2):
    """t + residual, or + scale2 * y2 + bias2."""
    if y2 is not None:
        r = up(tl.load(y2 + at, mask=keep, other=0.0))
        if scale2 is not None:
            r = r * tl.load(scale2 + c, mask=keep, other=0.0) + tl.load(
                bias2 + c, mask=keep, other=0.0
            )
        t += r
    return t


@triton.jit
def _xhat(v, c, keep, mean, rstd):
    return (v - tl.load(mean + c, mask=keep, other=0.0)) * tl.load(rstd + c, mask=keep, other=0.0)


@triton.jit(do_not_specialize=["M", "C", "inner", "steps", "act"])
def _bn_act_bwd_reduce(
    dz,
    y,
    mean,
    rstd,
    scale,
    bias,
    y2,
    mean2,
    rstd2,
    scale2,
    bias2,
    mask,
    g,
    partial,
    M,
    C,
    inner,
    steps,
    act,
    slope: tl.float64,
    ROWS: tl.constexpr,
    NHWC: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    tiles = tl.cdiv(C, BC)
    chunk = tl.program_id(0) // tiles
    channel = (tl.program_id(0) % tiles) * BC + tl.arange(0, BC)
    c = channel[None, :]
    first = chunk.to(tl.int64) * BM * steps
    sum_g = tl.zeros((BM, BC), partial.dtype.element_ty)
    sum_gx = tl.zeros((BM, BC), partial.dtype.element_ty)
    sum_gx2 = tl.zeros((BM, BC), partial.dtype.element_ty)
    for step in range(0, steps):
        start = first + step * BM
        keep = (start + tl.arange(0, BM) < M)[:, None] & (c < C)
        at = row_offsets(start, C, inner, NHWC, BM)[:, None] + channel_offsets(c, inner, NHWC)
        v = up(tl.load(y + at, mask=keep, other=0.0))
        grad = up(tl.load(dz + at, mask=keep, other=0.0))
        if mask is not None:
            t = mask_bits(mask, at, keep).to(grad.dtype)
        else:
            t = v * tl.load(scale + c, mask=c < C, other=0.0)
            t = _pre_act(
                t + tl.load(bias + c, mask=c < C, other=0.0), at, c, keep, y2, scale2, bias2
            )
        grad = apply_act_grad(grad, t, act, slope)
        if g is not None:
            stored = rounded(grad, g)
            tl.store(g + at, stored, mask=keep)
            grad = up(stored)
        # Outside of the tensor act' may be anything.
        grad = tl.where(keep, grad, 0.0)
        sum_g += grad
        sum_gx += grad * _xhat(v, c, c < C, mean, rstd)
        if mean2 is not None:
            v2 = up(tl.load(y2 + at, mask=keep, other=0.0))
            sum_gx2 += grad * _xhat(v2, c, c < C, mean2, rstd2)
    at = partial + chunk.to(tl.int64) * ROWS * C + channel
    tl.store(at, tl.sum(sum_g, 0), mask=channel < C)
    tl.store(at + C, tl.sum(sum_gx, 0), mask=channel < C)
    if mean2 is not None:
        tl.store(at + 2 * C, tl.sum(sum_gx2, 0), mask=channel < C)


def _run(
    dz: Tensor,
    y: Tensor,
    bn: tuple[Tensor, ...],
    y2: Vector,
    bn2: tuple[Vector, ...],
    mask: Vector,
    g: Vector,
    act: int,
    slope: float,
) -> Tensor:
    """Partial sums [T, 2, C]; [T, 3, C] with a second batch norm."""
    view = view_of(y, "y")
    names = ("mean", "rstd", "scale", "bias")
    check_vectors(y, view.channels, **dict(zip(names, bn, strict=True)))
    check_vectors(y, view.channels, **{f"{k}2": v for k, v in zip(names, bn2, strict=True)})
    check_same(dz, y, "dz")
    if y2 is not None:
        check_same(y2, y, "residual" if bn2[0] is None else "y2")
    check_mask(mask, y)
    plan = chunks_of(view)
    rows = 2 if bn2[0] is None else 3
    partial = stats_like(y, plan.chunks, rows, view.channels)
    launch(
        _bn_act_bwd_reduce, plan.programs, dz, y, *bn, y2, *bn2, mask, g, partial,
        view.rows, view.channels, view.inner, plan.steps, act, slope,
        config=DEFAULT if bn2[0] is None else DUAL, ROWS=rows, NHWC=view.nhwc, BM=plan.rows,
        BC=plan.columns,
    )  # fmt: skip
    return partial


_NO_BN = (None, None, None, None)


def bn_act_bwd_reduce(
    dz: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    act: int,
    slope: float,
) -> Tensor:
    bn = (mean, rstd, scale, bias)
    return merge_sums(_run(dz, y, bn, None, _NO_BN, None, None, act, slope))


def bn_act_bwd_reduce_add(
    dz: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Vector,
    mask: Vector,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor]:
    g = torch.empty_like(y)
    bn = (mean, rstd, scale, bias)
    return g, merge_sums(_run(dz, y, bn, residual, _NO_BN, mask, g, act, slope))


def bn_act_bwd_reduce_dual(
    dz: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    y2: Tensor,
    mean2: Tensor,
    rstd2: Tensor,
    scale2: Tensor,
    bias2: Tensor,
    mask: Vector,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.empty_like(y)
    bn, bn2 = (mean, rstd, scale, bias), (mean2, rstd2, scale2, bias2)
    partial = _run(dz, y, bn, y2, bn2, mask, g, act, slope)
    return g, merge_sums(partial), merge_sums(partial, (0, 2))
