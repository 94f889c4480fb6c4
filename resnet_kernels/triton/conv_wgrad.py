"""conv_wgrad: dw = dy^T * act(in_scale * x + in_bias), in the strides and dtype of w.

dy [N, P, Q, K], x [N, H, W, C]. Implicit GEMM: rows are filters, columns taps times channels, the
depth is pixels. Pixels are split over programs, whose products [split, K, R, S, C / groups] a
second kernel sums in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import dot, rounded
from .gemm import divided, prologue
from .geometry import (
    SIZES,
    Geometry,
    check_output,
    check_prologue,
    geometry_of,
    nhwc,
    prologue_act,
    use_tf32,
)
from .launch import launch
from .tensors import FLOATS, Vector, cdiv, require, stats_like
from .tiles import Tile, wgrad_tile
from .tuning import Case, tuned

_SUM_SIZES = [
    *("splits", "total", "RS", "S", "depth", "stride_k", "stride_c", "stride_r", "stride_s"),
]
BLOCK = 256


@triton.jit(do_not_specialize=[*SIZES, "row_tiles", "col_tiles", "groups", "steps"])
def _conv_wgrad(
    dy,
    x,
    in_scale,
    in_bias,
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
    row_tiles,
    col_tiles,
    groups,
    steps,
    in_slope: tl.float64,
    IN_ACT: tl.constexpr,
    FLAT: tl.constexpr,
    TF32: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """depth: channels of a group; columns: its filters.

    FLAT: a tile's columns are taps and channels in one, else channels of one tap.
    """
    tiles = row_tiles * col_tiles
    split = tl.program_id(0) // (tiles * groups)
    group = tl.program_id(0) // tiles % groups
    row = (tl.program_id(0) % row_tiles) * BM + tl.arange(0, BM)
    col_tile = tl.program_id(0) // row_tiles % col_tiles
    lane = tl.arange(0, BN)
    if FLAT:
        tap = (col_tile * BN + lane) // depth
        c = col_tile * BN + lane - tap * depth
        col_ok = tap < R * S
    else:
        blocks = tl.cdiv(depth, BN)
        tap = col_tile // blocks
        c = (col_tile - tap * blocks) * BN + lane
        col_ok = c < depth
    shift_h = tap // S * dil_h - pad_h
    shift_w = tap % S * dil_w - pad_w
    row_ok = row < columns
    k = group * columns + row

    acc = tl.zeros((BM, BN), partial.dtype.element_ty)
    first = split.to(tl.int64) * steps * BK
    for step in range(0, steps):
        start = first + step * BK
        n, p, q, m_ok = divided(start, M, BK, P * Q, Q)
        at = (start + tl.arange(0, BK)) * K
        ok = row_ok[:, None] & m_ok[None, :]
        a = tl.load(dy + at[None, :] + k[:, None], mask=ok, other=0.0)
        if FLAT:
            h = (p * stride_h)[:, None] + shift_h[None, :]
            w = (q * stride_w)[:, None] + shift_w[None, :]
            inside = (m_ok[:, None] & col_ok[None, :]) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            base = (n * H * W * C)[:, None] + (h * W + w).to(tl.int64) * C
        else:
            h = p * stride_h + shift_h
            w = q * stride_w + shift_w
            pixel_ok = m_ok & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            inside = pixel_ok[:, None] & col_ok[None, :]
            base = (n * H * W * C + (h * W + w).to(tl.int64) * C)[:, None]
        b = tl.load(x + base + (group * depth + c)[None, :], mask=inside, other=0.0)
        if in_scale is not None:
            channel = group * depth + c
            b = prologue(b, inside, channel, col_ok, in_scale, in_bias, in_slope, IN_ACT, 0)
        acc = dot(a, b, acc, TF32)
    at = (split.to(tl.int64) * K + k) * R * S * depth
    out = partial + at[:, None] + (tap * depth + c)[None, :]
    tl.store(out, acc, mask=row_ok[:, None] & col_ok[None, :])


@triton.jit(do_not_specialize=_SUM_SIZES)
def _sum_splits(
    partial,
    dw,
    splits,
    total,
    RS,
    S,
    depth,
    stride_k,
    stride_c,
    stride_r,
    stride_s,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keep = i < total
    acc = tl.zeros((BLOCK,), partial.dtype.element_ty)
    for split in range(0, splits):
        acc += tl.load(partial + tl.cast(total, tl.int64) * split + i, mask=keep, other=0.0)
    tap = i // depth
    c = i - tap * depth
    k = tap // RS
    tap -= k * RS
    r = tap // S
    at = k * stride_k + c * stride_c + r * stride_r + (tap - r * S) * stride_s
    tl.store(dw + at, rounded(acc, dw), mask=keep)


def _grid(tile: Tile, g: Geometry) -> tuple[int, int, int]:
    """Tiles of filters and of columns, and groups."""
    taps = g.r * g.s
    flat, columns = (1, taps * g.depth) if tile.flat else (taps, g.depth)
    return cdiv(g.columns, tile.rows), flat * cdiv(columns, tile.columns), g.groups


def conv_wgrad(
    dy: Tensor,
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
) -> Tensor:
    g = geometry_of(x.shape, w, stride, padding, dilation, groups)
    check_output(dy, g, "dy")
    require(dy.dtype == x.dtype, "dy: dtype differs")
    require(dy.device == x.device, "dy: device differs")
    require(
        w.dtype in FLOATS and w.device == x.device,
        "w: expected float32, float64, float16 or bfloat16, on the device of x",
    )
    check_prologue(x, in_scale, in_bias, in_act)
    dw = torch.empty_like(w)
    if dy.numel() == 0 or x.numel() == 0:
        return dw.zero_()
    dy, x = nhwc(dy, "dy"), nhwc(x, "x")
    tf32 = use_tf32(x, tf32)
    static = wgrad_tile(g.columns, g.depth, g.r * g.s, x.dtype, tf32)
    # Of the static tile, whichever runs: splits are sums.
    splits, steps = static.split(g.pixels, math.prod(_grid(static, g)))
    partial = stats_like(x, splits, g.k, g.r * g.s * g.depth)

    def run(tile: Tile) -> None:
        row_tiles, col_tiles, _ = grid = _grid(tile, g)
        launch(
            _conv_wgrad, math.prod(grid) * splits, dy, x, in_scale, in_bias, partial, *g.numbers(),
            row_tiles, col_tiles, groups, steps, in_slope,
            config=tile.config, IN_ACT=prologue_act(in_scale, in_act), **tile.constants(tf32),
        )  # fmt: skip

    case = Case("conv_wgrad", g, x, tf32, {"in_scale": in_scale}, False)
    run(tuned(case, static, g.depth * (g.r * g.s if static.flat else 1), run))
    total = dw.numel()
    args = (partial, dw, splits, total, g.r * g.s, g.s, g.depth, *dw.stride())
    launch(_sum_splits, cdiv(total, BLOCK), *args, BLOCK=BLOCK)
    return dw
