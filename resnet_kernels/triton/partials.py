"""Partial statistics and sums of programs, merged in a fixed order: the same bits in every run.

Statistics are triples (count, mean, M2) and merged by Chan's formula. The order depends on shapes
alone; a tile of another size in front of a merge changes it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import sum_along
from .launch import launch
from .tensors import cdiv, stats_like

# Channels of a program, and partial results it takes at a time and in all.
BLOCK_C = 32
BLOCK_T = 32
FAN = 256


@triton.jit
def chan(count, mean, m2, axis: tl.constexpr):
    """Merges triples along an axis, those of count 0 left out; mean and M2 of the others finite.

    Around the first mean, not zero, so that a large common mean costs no digits.
    """
    summed = sum_along(count, axis)
    first = sum_along(tl.where(count > 0, mean, 0.0), axis)
    pivot = first / tl.maximum(sum_along((count > 0).to(mean.dtype), axis), 1.0)
    from_pivot = tl.where(count > 0, mean - tl.expand_dims(pivot, axis), 0.0)
    shift = sum_along(count * from_pivot, axis) / tl.maximum(summed, 1.0)
    apart = from_pivot - tl.expand_dims(shift, axis)
    m2 = sum_along(tl.where(count > 0, m2 + count * apart * apart, 0.0), axis)
    return summed, pivot + shift, m2


@triton.jit
def chan_pair(count, mean, m2, count2, mean2, m22):
    """Merges two triples of every channel."""
    total = count + count2
    delta = mean2 - mean
    part = count2 / tl.maximum(total, 1.0)
    delta = tl.where(count2 > 0, tl.where(count > 0, delta, mean2), 0.0)
    mean = tl.where(count > 0, mean, 0.0) + delta * part
    m2 = m2 + tl.where(
        count2 > 0, m22 + tl.where(count > 0, delta * delta * count * part, 0.0), 0.0
    )
    return total, mean, m2


@triton.jit(do_not_specialize=["T", "C"])
def _merge_stats(partial, out, T, C, BT: tl.constexpr, BC: tl.constexpr, FAN: tl.constexpr):
    tiles = tl.cdiv(C, BC)
    group = tl.program_id(0) // tiles
    c = (tl.program_id(0) % tiles) * BC + tl.arange(0, BC)
    dtype = partial.dtype.element_ty
    count = tl.zeros((BC,), dtype)
    mean = tl.zeros((BC,), dtype)
    m2 = tl.zeros((BC,), dtype)
    for step in range(0, FAN, BT):
        t = group * FAN + step + tl.arange(0, BT)
        keep = (t < T)[:, None] & (c < C)[None, :]
        at = partial + t.to(tl.int64)[:, None] * 3 * C + c[None, :]
        n = tl.load(at, mask=keep, other=0.0)
        m = tl.load(at + C, mask=keep, other=0.0)
        s = tl.load(at + 2 * C, mask=keep, other=0.0)
        n, m, s = chan(n, m, s, 0)
        count, mean, m2 = chan_pair(count, mean, m2, n, m, s)
    at = out + group.to(tl.int64) * 3 * C + c
    tl.store(at, count, mask=c < C)
    tl.store(at + C, mean, mask=c < C)
    tl.store(at + 2 * C, m2, mask=c < C)


@triton.jit(do_not_specialize=["T", "R", "C", "row0", "row1"])
def _merge_sums(
    partial, out, T, R, C, row0, row1, BT: tl.constexpr, BC: tl.constexpr, FAN: tl.constexpr
):
    tiles = tl.cdiv(C, BC)
    group = tl.program_id(0) // (2 * tiles)
    half = tl.program_id(0) // tiles % 2
    c = (tl.program_id(0) % tiles) * BC + tl.arange(0, BC)
    row = tl.where(half == 0, row0, row1)
    total = tl.zeros((BC,), partial.dtype.element_ty)
    for step in range(0, FAN, BT):
        t = group * FAN + step + tl.arange(0, BT)
        keep = (t < T)[:, None] & (c < C)[None, :]
        at = partial + (t.to(tl.int64)[:, None] * R + row) * C + c[None, :]
        total += tl.sum(tl.load(at, mask=keep, other=0.0), 0)
    tl.store(out + (group.to(tl.int64) * 2 + half) * C + c, total, mask=c < C)


def merge_stats(partial: Tensor) -> Tensor:
    """[T, 3, C] -> [3, C]; T = 0 gives zeros."""
    while True:
        t, _, c = partial.shape
        groups = max(cdiv(t, FAN), 1)
        out = stats_like(partial, groups, 3, c)
        programs = groups * cdiv(c, BLOCK_C)
        launch(_merge_stats, programs, partial, out, t, c, BT=BLOCK_T, BC=BLOCK_C, FAN=FAN)
        if groups == 1:
            return out[0]
        partial = out


def merge_sums(partial: Tensor, rows: tuple[int, int] = (0, 1)) -> Tensor:
    """Two rows of [T, R, C] -> [2, C]; T = 0 gives zeros."""
    while True:
        t, r, c = partial.shape
        groups = max(cdiv(t, FAN), 1)
        out = stats_like(partial, groups, 2, c)
        programs = 2 * groups * cdiv(c, BLOCK_C)
        launch(_merge_sums, programs, partial, out, t, r, c, *rows, BT=BLOCK_T, BC=BLOCK_C, FAN=FAN)
        if groups == 1:
            return out[0]
        partial, rows = out, (0, 1)


def no_rows(like: Tensor, *size: int) -> Tensor:
    """Statistics or sums of nothing."""
    return torch.zeros_like(stats_like(like, *size))
