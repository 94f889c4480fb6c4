"""bn_stats: count, mean and M2 of each channel of x [N, C, H, W] in either layout, as [3, C].

A program walks a chunk of pixels with a tile; each place of the tile keeps Welford's mean and M2,
so that no value far from the first ones costs digits. Places, then programs are merged by Chan.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .chunks import Chunks, chunks_of
from .common import channel_offsets, row_offsets, up
from .launch import launch
from .partials import chan, merge_stats
from .tensors import stats_like, view_of


@triton.jit(do_not_specialize=["M", "C", "inner", "steps"])
def _bn_stats(
    x,
    partial,
    M,
    C,
    inner,
    steps,
    NHWC: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    tiles = tl.cdiv(C, BC)
    chunk = tl.program_id(0) // tiles
    c = (tl.program_id(0) % tiles) * BC + tl.arange(0, BC)
    first = chunk.to(tl.int64) * BM * steps
    dtype = partial.dtype.element_ty
    count = tl.zeros((BM, BC), dtype)
    mean = tl.zeros((BM, BC), dtype)
    m2 = tl.zeros((BM, BC), dtype)
    for step in range(0, steps):
        start = first + step * BM
        keep = (start + tl.arange(0, BM) < M)[:, None] & (c < C)[None, :]
        at = row_offsets(start, C, inner, NHWC, BM)[:, None]
        at += channel_offsets(c, inner, NHWC)[None, :]
        v = up(tl.load(x + at, mask=keep, other=0.0))
        delta = tl.where(keep, v - mean, 0.0)
        mean += delta * (tl.cast(1.0, dtype) / (step + 1))
        m2 += delta * tl.where(keep, v - mean, 0.0)
        count += keep.to(dtype)
    count, mean, m2 = chan(count, mean, m2, 0)
    at = partial + chunk.to(tl.int64) * 3 * C + c
    tl.store(at, count, mask=c < C)
    tl.store(at + C, mean, mask=c < C)
    tl.store(at + 2 * C, m2, mask=c < C)


def bn_stats(x: Tensor) -> Tensor:
    view = view_of(x, "x")
    plan: Chunks = chunks_of(view)
    partial = stats_like(x, plan.chunks, 3, view.channels)
    sizes = (view.rows, view.channels, view.inner, plan.steps)
    launch(
        _bn_stats, plan.programs, x, partial, *sizes, NHWC=view.nhwc, BM=plan.rows, BC=plan.columns
    )
    return merge_stats(partial)
