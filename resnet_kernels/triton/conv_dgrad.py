"""conv_dgrad: dx = conv_transpose(dy, w) [+ branch]; conv_dgrad_bn: the same times act'(t) of the
batch norm in front, as g with its sums [2, C].

dy [N, P, Q, K], w [K, R, S, C / groups], dx, branch, y_prev, g [N, H, W, C]. The pixels of dx are
split by their phase modulo the stride: a phase has the taps that meet it and no others, so nothing
is multiplied by a zero between pixels of dy. dz is never rounded: g is stored and summed as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops.fakes import stats_dtype
from ..ops.layout import conv_memory_format
from .common import apply_act_grad, mask_bits, rounded, up
from .gemm import divided, implicit_gemm
from .geometry import (
    Geometry,
    check_format,
    check_output,
    filter_krsc,
    geometry_of,
    nhwc,
    use_tf32,
)
from .launch import launch
from .partials import merge_sums, no_rows
from .phases import Phase, phases_of
from .tensors import (
    Vector,
    cdiv,
    check_act,
    check_mask,
    check_vectors,
    require,
    stats_like,
    view_of,
)
from .tiles import Tile, tile_for
from .tuning import Case, tuned

_SIZES = [
    *("tile_0", "M", "PH", "PW", "h_first", "w_first", "stride_h", "stride_w", "p_first"),
    *(
        "q_first",
        "p_step",
        "q_step",
        "TAPS_H",
        "TAPS_W",
        "tap_0",
        "tap_h",
        "tap_w",
        "H",
        "W",
        "P",
        "Q",
    ),
    *("tiles", "mask_channel", "mask_pixel", "act"),
]


@triton.jit
def _bn_gradient(
    dz, at, bit, ok, c, c_ok, y_prev, mean, rstd, scale, bias, mask, g, partial, tile, C, act, slope
):  # fmt: skip
    """Stores g and its sums over the tile's rows."""
    v = up(tl.load(y_prev + at, mask=ok, other=0.0))
    if mask is not None:
        t = mask_bits(mask, bit, ok).to(dz.dtype)
    else:
        t = v * tl.load(scale + c, mask=c_ok, other=0.0)[None, :]
        t += tl.load(bias + c, mask=c_ok, other=0.0)[None, :]
    stored = rounded(apply_act_grad(dz, t, act, slope), g)
    tl.store(g + at, stored, mask=ok)
    grad = tl.where(ok, up(stored), 0.0)
    xhat = v - tl.load(mean + c, mask=c_ok, other=0.0)[None, :]
    xhat = xhat * tl.load(rstd + c, mask=c_ok, other=0.0)[None, :]
    out = partial + tile.to(tl.int64) * 2 * C + c
    tl.store(out, tl.sum(grad, 0), mask=c_ok)
    tl.store(out + C, tl.sum(grad * xhat, 0), mask=c_ok)


@triton.jit(do_not_specialize=_SIZES)
def _conv_dgrad(
    dy,
    w,
    branch,
    y_prev,
    mean,
    rstd,
    scale,
    bias,
    mask,
    dx,
    partial,
    tile_0,
    M,
    PH,
    PW,
    h_first,
    w_first,
    stride_h,
    stride_w,
    p_first,
    q_first,
    p_step,
    q_step,
    TAPS_H,
    TAPS_W,
    tap_0,
    tap_h,
    tap_w,
    H,
    W,
    C,
    columns,
    P,
    Q,
    K,
    depth,
    filter_stride,
    tiles,
    mask_channel,
    mask_pixel,
    act,
    slope: tl.float64,
    FLAT: tl.constexpr,
    TF32: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    tile = tl.program_id(0) // tiles
    blocks = tl.cdiv(columns, BN)
    group = tl.program_id(0) % tiles // blocks
    col = (tl.program_id(0) % tiles - group * blocks) * BN + tl.arange(0, BN)
    col_ok = col < columns
    c = group * columns + col

    n, i, j, row_ok = divided(tile.to(tl.int64) * BM, M, BM, PH * PW, PW)
    acc = tl.zeros((BM, BN), tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32)
    acc = implicit_gemm(
        acc, dy, n * P * Q * K, i + p_first, j + q_first, row_ok, P, Q, K, group * depth, depth,
        TAPS_H, TAPS_W, -p_step, -q_step, w + group.to(tl.int64) * depth * filter_stride, col,
        col_ok, 1, filter_stride, tap_0, tap_h, tap_w, None, None, 0.0, 0, FLAT, TF32, BK,
    )  # fmt: skip

    pixel = ((i * stride_h + h_first) * W + j * stride_w + w_first).to(tl.int64)
    at = (n * H * W * C + pixel * C)[:, None] + c[None, :]
    ok = row_ok[:, None] & col_ok[None, :]
    if branch is not None:
        acc = acc + up(tl.load(branch + at, mask=ok, other=0.0))
    if y_prev is None:
        tl.store(dx + at, rounded(acc, dx), mask=ok)
    else:
        bit = at
        if mask_pixel is not None:
            # 64 bits each, which the registers of a large tile have no room for twice.
            bit = (n * H * W * C + pixel * mask_pixel)[:, None]
            bit += (c.to(tl.int64) * mask_channel)[None, :]
        _bn_gradient(
            acc, at, bit, ok, c, col_ok, y_prev, mean, rstd, scale, bias, mask, dx, partial,
            tile_0 + tile, C, act, slope,
        )  # fmt: skip


class _Previous(NamedTuple):
    """The batch norm in front of the convolution, its tensors in channels_last."""

    y: Tensor
    vectors: tuple[Tensor, Tensor, Tensor, Tensor]
    mask: Vector
    act: int
    slope: float
    # Distance of channels and pixels in the mask, where y did not come in channels_last.
    mask_strides: tuple[int | None, int | None]


def _launch_phase(
    phase: Phase,
    tile: Tile,
    tile_0: int,
    tensors: tuple[Vector, ...],
    previous: _Previous | None,
    g: Geometry,
    tf32: bool,
) -> None:
    # The convolution's depth is what its gradient has for columns, and the other way round.
    columns, depth = g.depth, g.columns
    tiles = cdiv(columns, tile.columns) * g.groups
    rows = g.n * phase.h.pixels * phase.w.pixels
    h, w = phase.h, phase.w
    mask_strides = previous.mask_strides if previous else (None, None)
    launch(
        _conv_dgrad, cdiv(rows, tile.rows) * tiles, *tensors, tile_0, rows, h.pixels, w.pixels,
        h.first, w.first, *g.stride, h.start, w.start, h.step, w.step, h.taps, w.taps,
        (h.tap * g.s + w.tap) * columns, h.tap_step * g.s * columns, w.tap_step * columns, g.h, g.w,
        g.c, columns, g.p, g.q, g.k, depth, g.r * g.s * columns, tiles, *mask_strides,
        previous.act if previous else 0, previous.slope if previous else 0.0,
        config=tile.config, **tile.constants(tf32),
    )  # fmt: skip


def _run(
    dy: Tensor, w: Tensor, branch: Vector, g: Geometry, tf32: bool, previous: _Previous | None
) -> tuple[Tensor, Vector]:
    """dx, or g and its sums, in channels_last."""
    size = (g.n, g.c, g.h, g.w)
    layout = conv_memory_format(dy, w)
    check_output(dy, g, "dy")
    dy, w = nhwc(dy, "dy"), filter_krsc(w, dy)
    if branch is not None:
        require(tuple(branch.shape) == size, f"branch: expected size {size}")
        require(branch.dtype == dy.dtype, "branch: dtype differs")
        check_format(branch, layout, "branch")
        branch = nhwc(branch, "branch")
    out = torch.empty(size, dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last)
    if out.numel() == 0:
        return out, no_rows(out, 2, g.c) if previous else None
    tf32 = use_tf32(dy, tf32)
    phases = phases_of(g)
    most = max(g.n * p.h.pixels * p.w.pixels for p in phases)
    bn = (previous.y, *previous.vectors, previous.mask) if previous else (None,) * 6

    def run(tile: Tile) -> Vector:
        """dx or g; the partial sums."""
        counts = [cdiv(g.n * p.h.pixels * p.w.pixels, tile.rows) for p in phases]
        partial = stats_like(dy, sum(counts), 2, g.c) if previous else None
        for i, phase in enumerate(phases):
            tensors = (dy, w, branch, *bn, out, partial)
            _launch_phase(phase, tile, sum(counts[:i]), tensors, previous, g, tf32)
        return partial

    static = tile_for(most, g.depth, g.columns, dy.dtype, tf32, gradient=previous is not None)
    case = Case("conv_dgrad", g, dy, tf32, {"branch": branch, "mask": bn[-1]}, previous is not None)
    partial = run(tuned(case, static, g.depth, run))
    return out, None if partial is None else merge_sums(partial)


def conv_dgrad(
    dy: Tensor,
    w: Tensor,
    branch: Vector,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    g = geometry_of(input_size, w, stride, padding, dilation, groups)
    dx, _ = _run(dy, w, branch, g, tf32, None)
    return dx.contiguous(memory_format=conv_memory_format(dy, w))


def conv_dgrad_bn(
    dy: Tensor,
    w: Tensor,
    branch: Vector,
    y_prev: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask: Vector,
    act: int,
    slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    geometry = geometry_of(y_prev.shape, w, stride, padding, dilation, groups)
    view, vectors = view_of(y_prev, "y_prev"), (mean, rstd, scale, bias)
    require(y_prev.dtype == dy.dtype, "y_prev: dtype differs")
    require(
        all(v.numel() == view.channels and v.dtype == stats_dtype(dy.dtype) for v in vectors),
        f"mean, rstd, scale, bias: expected {view.channels} values in the dtype of statistics",
    )
    check_vectors(y_prev, view.channels, mean=mean, rstd=rstd, scale=scale, bias=bias)
    check_act(act)
    check_mask(mask, y_prev)
    previous = _Previous(
        nhwc(y_prev, "y_prev"),
        vectors,
        mask,
        act,
        slope,
        (None, None) if view.nhwc else (view.inner, 1),
    )
    g, sums = _run(dy, w, branch, geometry, tf32, previous)
    assert sums is not None
    if g.stride() != y_prev.stride():
        g = torch.empty_like(y_prev).copy_(g)
    return g, sums
