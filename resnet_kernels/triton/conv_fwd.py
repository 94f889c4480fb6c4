"""conv_fwd, conv_fwd_stats: y = act(out_scale * conv(in_act(in_scale * x + in_bias), w) + ...).

x [N, H, W, C], w [K, R, S, C / groups], y and residual [N, P, Q, K]. The epilogue is applied before
y is rounded. Statistics are those of y as stored: a triple (count, mean, M2) of each tile, merged
by a second kernel in the order of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops.layout import conv_memory_format
from .common import apply_act, rounded, up
from .gemm import divided, implicit_gemm
from .geometry import (
    SIZES,
    Geometry,
    check_format,
    check_prologue,
    filter_krsc,
    geometry_of,
    nhwc,
    prologue_act,
    use_tf32,
)
from .launch import launch
from .partials import merge_stats, no_rows
from .tensors import Vector, cdiv, check_act, check_vectors, require, stats_like
from .tiles import Tile, tile_for
from .tuning import Case, tuned


@triton.jit
def _store_stats(v, ok, rows, partial, tile, k, k_ok, K):
    """Count, mean and M2 of a tile's columns; around the mean, whose own rounding is made good."""
    count = rows.to(v.dtype)
    mean = tl.sum(tl.where(ok, v, 0.0), 0) / count
    apart = tl.where(ok, v - mean[None, :], 0.0)
    residue = tl.sum(apart, 0) / count
    m2 = tl.sum(apart * apart, 0) - count * residue * residue
    at = partial + tile.to(tl.int64) * 3 * K + k
    tl.store(at, tl.zeros_like(mean) + count, mask=k_ok)
    tl.store(at + K, mean + residue, mask=k_ok)
    tl.store(at + 2 * K, tl.maximum(m2, 0.0), mask=k_ok)


@triton.jit(do_not_specialize=[*SIZES, "K", "tiles", "out_act"])
def _conv_fwd(
    x,
    w,
    in_scale,
    in_bias,
    out_scale,
    out_bias,
    residual,
    y,
    partial,
    M,
    P,
    Q,
    H,
    W,
    C,
    depth,
    K,
    columns,
    R,
    S,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dil_h,
    dil_w,
    tiles,
    filter_stride,
    out_act,
    in_slope: tl.float64,
    out_slope: tl.float64,
    IN_ACT: tl.constexpr,
    FLAT: tl.constexpr,
    TF32: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    # Blocks of columns first: neighbours share their rows of x in the cache.
    tile = tl.program_id(0) // tiles
    blocks = tl.cdiv(columns, BN)
    group = tl.program_id(0) % tiles // blocks
    col = (tl.program_id(0) % tiles - group * blocks) * BN + tl.arange(0, BN)
    col_ok = col < columns
    k = group * columns + col

    start = tile.to(tl.int64) * BM
    n, p, q, row_ok = divided(start, M, BM, P * Q, Q)
    acc = tl.zeros((BM, BN), tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32)
    acc = implicit_gemm(
        acc, x, n * H * W * C, p * stride_h - pad_h, q * stride_w - pad_w, row_ok, H, W, C,
        group * depth, depth, R, S, dil_h, dil_w, w, k, col_ok, filter_stride, 1, 0, S * depth,
        depth, in_scale, in_bias, in_slope, IN_ACT, FLAT, TF32, BK,
    )  # fmt: skip

    ok = row_ok[:, None] & col_ok[None, :]
    at = (start + tl.arange(0, BM))[:, None] * K + k[None, :]
    if out_scale is not None:
        acc = acc * tl.load(out_scale + k, mask=col_ok, other=0.0)[None, :]
    if out_bias is not None:
        acc = acc + tl.load(out_bias + k, mask=col_ok, other=0.0)[None, :]
    if residual is not None:
        acc = acc + up(tl.load(residual + at, mask=ok, other=0.0))
    value = rounded(apply_act(acc, out_act, out_slope), y)
    tl.store(y + at, value, mask=ok)
    if partial is not None:
        _store_stats(up(value), ok, tl.minimum(M - start, BM), partial, tile, k, col_ok, K)


def _run(
    x: Tensor,
    w: Tensor,
    prologue: tuple[Vector, Vector, int, float],
    epilogue: tuple[Vector, Vector, Vector, int, float],
    geometry: Geometry,
    tf32: bool,
    stats: bool,
) -> tuple[Tensor, Vector]:
    """y in channels_last, and its statistics."""
    in_scale, in_bias, in_act, in_slope = prologue
    out_scale, out_bias, residual, out_act, out_slope = epilogue
    g = geometry
    check_prologue(x, in_scale, in_bias, in_act)
    check_act(out_act)
    check_vectors(x, g.k, out_scale=out_scale, out_bias=out_bias)
    layout = conv_memory_format(x, w)
    x, w = nhwc(x, "x"), filter_krsc(w, x)
    y = torch.empty(
        (g.n, g.k, g.p, g.q), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    if residual is not None:
        require(residual.shape == y.shape, f"residual: expected size {list(y.shape)}")
        require(residual.dtype == y.dtype, "residual: dtype differs")
        check_format(residual, layout, "residual")
        residual = nhwc(residual, "residual")
    if y.numel() == 0:
        return y, no_rows(x, 3, g.k) if stats else None
    tf32 = use_tf32(x, tf32)

    def run(tile: Tile) -> Vector:
        """y; the partial statistics."""
        rows, tiles = cdiv(g.pixels, tile.rows), cdiv(g.columns, tile.columns) * g.groups
        partial = stats_like(x, rows, 3, g.k) if stats else None
        launch(
            _conv_fwd, rows * tiles, x, w, in_scale, in_bias, out_scale, out_bias, residual, y,
            partial, *g.numbers(), tiles, g.r * g.s * g.depth, out_act, in_slope, out_slope,
            config=tile.config, IN_ACT=prologue_act(in_scale, in_act), **tile.constants(tf32),
        )  # fmt: skip
        return partial

    static = tile_for(g.pixels, g.columns, g.depth, x.dtype, tf32, sums=stats)
    case = Case("conv_fwd", g, x, tf32, {"in_scale": in_scale, "residual": residual}, stats)
    partial = run(tuned(case, static, g.columns, run))
    return y, None if partial is None else merge_stats(partial)


def conv_fwd(
    x: Tensor,
    w: Tensor,
    in_scale: Vector,
    in_bias: Vector,
    in_act: int,
    in_slope: float,
    out_scale: Vector,
    out_bias: Vector,
    residual: Vector,
    out_act: int,
    out_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    geometry = geometry_of(x.shape, w, stride, padding, dilation, groups)
    prologue = (in_scale, in_bias, in_act, in_slope)
    epilogue = (out_scale, out_bias, residual, out_act, out_slope)
    y, _ = _run(x, w, prologue, epilogue, geometry, tf32, False)
    return y.contiguous(memory_format=conv_memory_format(x, w))


def conv_fwd_stats(
    x: Tensor,
    w: Tensor,
    in_scale: Vector,
    in_bias: Vector,
    in_act: int,
    in_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    geometry = geometry_of(x.shape, w, stride, padding, dilation, groups)
    prologue = (in_scale, in_bias, in_act, in_slope)
    y, stats = _run(x, w, prologue, (None, None, None, 0, 0.0), geometry, tf32, True)
    assert stats is not None
    return y.contiguous(memory_format=conv_memory_format(x, w)), stats
