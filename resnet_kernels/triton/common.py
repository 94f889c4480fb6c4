"""What the kernels share: activations, dtypes, products and where the elements of a tensor lie.

Values are computed in fp32 (fp64 for fp64). An activation tensor is seen as [outer, C, inner], the
last index fastest: [N*H*W, C, 1] in channels_last, [N, C, H*W] in contiguous memory. Offsets are 64
bits wide; divisions are 32 bits wide, by what a program's first element leaves over.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Kernels decorated under TRITON_INTERPRET=1 run on numpy.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))

if INTERPRETED.value:
    from .interpreted import exp, normal_cdf, round_to, sum_along, up
else:
    from .precise import exp, normal_cdf, round_to, sum_along, up  # noqa: F401  partials sums

IDENTITY = tl.constexpr(0)
RELU = tl.constexpr(1)
GELU = tl.constexpr(2)
SILU = tl.constexpr(3)
LEAKY_RELU = tl.constexpr(4)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)


@triton.jit
def rounded(x, pointer):
    """x in the dtype that `pointer` points to."""
    return round_to(x, pointer.dtype.element_ty)


@triton.jit
def number(value, like):
    """A number argument (fp64; of Python under the interpreter) in the dtype of `like`."""
    if INTERPRETED:
        return value
    else:
        return value.to(like.dtype)


@triton.jit
def apply_act(t, act, slope):
    """act(t). NaN stays NaN, as in torch."""
    if act == RELU:
        t = tl.where(t < 0, 0.0, t)
    elif act == GELU:
        t = t * normal_cdf(t)
    elif act == SILU:
        t = t / (1 + exp(-t))
    elif act == LEAKY_RELU:
        t = tl.where(t > 0, t, t * number(slope, t))
    return t


@triton.jit
def apply_act_grad(dz, t, act, slope):
    """dz * act'(t). A masked-out dz counts as zero even where it is not finite, as in torch."""
    if act == RELU:
        dz = tl.where(t > 0, dz, 0.0)
    elif act == GELU:
        dz = dz * (normal_cdf(t) + t * exp(-0.5 * t * t) * INV_SQRT_2PI)
    elif act == SILU:
        sigmoid = 1 / (1 + exp(-t))
        dz = dz * (sigmoid * (1 + t * (1 - sigmoid)))
    elif act == LEAKY_RELU:
        dz = tl.where(t > 0, dz, dz * number(slope, dz))
    return dz


@triton.jit
def round_tf32(x):
    """Nearest tf32 value, ties away from zero (cvt.rna.tf32.f32); NaN stays NaN."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)


@triton.jit
def dot(a, b, acc, TF32: tl.constexpr):
    """acc + a @ b; fp32 operands are rounded to tf32 or multiplied exactly."""
    if INTERPRETED:
        # The interpreter takes the bits of bf16 for integers.
        a, b = up(a), up(b)
    if TF32:
        return tl.dot(round_tf32(a), round_tf32(b), acc, input_precision="tf32")
    else:
        return tl.dot(a, b, acc, input_precision="ieee", out_dtype=acc.dtype)


@triton.jit
def flat_channels(start, C, inner, NHWC: tl.constexpr, BLOCK: tl.constexpr):
    """Channels of the elements start ... start + BLOCK - 1 in memory order; start int64."""
    i = tl.arange(0, BLOCK)
    if NHWC:
        return ((start % C).to(tl.int32) + i) % C
    else:
        plane = start // inner
        return ((plane % C).to(tl.int32) + ((start - plane * inner).to(tl.int32) + i) // inner) % C


@triton.jit
def row_offsets(start, C, inner, NHWC: tl.constexpr, BM: tl.constexpr):
    """Offsets of channel 0 at the pixels start ... start + BM - 1; start int64."""
    i = tl.arange(0, BM)
    if NHWC:
        return (start + i) * C
    else:
        n = start // inner
        pixel = (start - n * inner).to(tl.int32) + i
        return (n + pixel // inner) * C * inner + pixel % inner


@triton.jit
def channel_offsets(c, inner, NHWC: tl.constexpr):
    """Offsets of channels c from channel 0."""
    if NHWC:
        return c
    else:
        return c.to(tl.int64) * inner


@triton.jit
def mask_bits(mask, offset, keep):
    """Bits of a mask in memory order as 1 and 0."""
    byte = tl.load(mask + (offset >> 3), mask=keep, other=0)
    return (byte >> (offset & 7).to(tl.uint8)) & 1
