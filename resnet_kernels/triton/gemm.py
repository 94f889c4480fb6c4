"""The main loop of implicit GEMM: rows are pixels of the result, columns its channels, the depth is
taps of the filter times channels of the operand that is gathered.

The operand lies in channels_last, the filter as [K, R, S, C / groups]. A tap (i, j) of the row at
(h0, w0) reads pixel (h0 + i * step_h, w0 + j * step_w); pixels outside the image are zero, behind
the prologue too. `conv_fwd` and `conv_dgrad` differ in these numbers and in the filter's strides.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import apply_act, dot, round_to, up


@triton.jit
def divided(start, total, BM: tl.constexpr, PQ, Q):
    """Image, row and column of the pixels start ... start + BM - 1, and which are among `total`."""
    i = tl.arange(0, BM)
    n = start // PQ
    pixel = (start - n * PQ).to(tl.int32) + i
    image = pixel // PQ
    pixel -= image * PQ
    p = pixel // Q
    return n + image, p, pixel - p * Q, start + i < total


@triton.jit
def prologue(a, inside, c, c_ok, scale, bias, slope, ACT: tl.constexpr, axis: tl.constexpr):
    """act(scale * a + bias) rounded to a's dtype; channels lie along the other axis than `axis`."""
    s = tl.expand_dims(tl.load(scale + c, mask=c_ok, other=0.0), axis)
    b = tl.expand_dims(tl.load(bias + c, mask=c_ok, other=0.0), axis)
    t = apply_act(up(a) * s + b, ACT, slope)
    return tl.where(inside, round_to(t, a.dtype), 0.0)


@triton.jit
def implicit_gemm(
    acc,
    a_ptr,
    a_base,
    h0,
    w0,
    row_ok,
    H,
    W,
    a_stride,
    a_channel,
    depth,
    TAPS_H,
    TAPS_W,
    step_h,
    step_w,
    b_ptr,
    col,
    col_ok,
    col_stride,
    depth_stride,
    tap_0,
    tap_h,
    tap_w,
    scale,
    bias,
    slope,
    ACT: tl.constexpr,
    FLAT: tl.constexpr,
    TF32: tl.constexpr,
    BK: tl.constexpr,
):
    """acc [BM, BN] + the product.

    a_base: offsets [BM] of the rows' images, int64; a_channel: the group's first channel. FLAT: the
    depth counts taps and channels in one, for operands of few channels; else a step of the loop
    has one tap and BK channels of it.
    """
    lane = tl.arange(0, BK)
    blocks = tl.cdiv(depth, BK)
    steps = tl.cdiv(TAPS_H * TAPS_W * depth, BK) if FLAT else TAPS_H * TAPS_W * blocks
    for t in range(0, steps):
        if FLAT:
            d = t * BK + lane
            tap = d // depth
            c = d - tap * depth
            i = tap // TAPS_W
            j = tap - i * TAPS_W
            d_ok = tap < TAPS_H * TAPS_W
            h = h0[:, None] + (i * step_h)[None, :]
            w = w0[:, None] + (j * step_w)[None, :]
            ok = row_ok[:, None] & d_ok[None, :]
            inside = ok & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            at = a_base[:, None] + (h * W + w).to(tl.int64) * a_stride
            weight = tap_0 + i * tap_h + j * tap_w + c * depth_stride
        else:
            tap = t // blocks
            c = (t - tap * blocks) * BK + lane
            i = tap // TAPS_W
            j = tap - i * TAPS_W
            d_ok = c < depth
            h = h0 + i * step_h
            w = w0 + j * step_w
            row_in = row_ok & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            inside = row_in[:, None] & d_ok[None, :]
            at = (a_base + (h * W + w).to(tl.int64) * a_stride)[:, None]
            weight = tap_0 + i * tap_h + j * tap_w + c * depth_stride
        a = tl.load(a_ptr + at + (a_channel + c)[None, :], mask=inside, other=0.0)
        b = tl.load(
            b_ptr + weight[:, None] + (col * col_stride)[None, :],
            mask=d_ok[:, None] & col_ok[None, :],
            other=0.0,
        )
        if scale is not None:
            a = prologue(a, inside, a_channel + c, d_ok, scale, bias, slope, ACT, 0)
        acc = dot(a, b, acc, TF32)
    return acc
