"""Conversions, sums, exp and the normal distribution to the last digits; see also interpreted.py.

tl.exp is off by |x| / 2 eps, and 0.5 * (1 + erf(t / sqrt(2))) loses all digits where it is tiny.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

SQRT_HALF = tl.constexpr(0.7071067811865476)
# sqrt(1/2) minus its fp32 value.
SQRT_HALF_REST = tl.constexpr(1.210161749158126e-08)
TWO_OVER_SQRT_PI = tl.constexpr(1.1283791670955126)


@triton.jit
def up(x):
    """x in the dtype it is computed in."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def round_to(x, dtype: tl.constexpr):
    return x.to(dtype)


@triton.jit
def sum_along(x, axis: tl.constexpr):
    """Sum along an axis."""
    return tl.sum(x, axis)


@triton.jit
def exp(x):
    return libdevice.exp(x)


@triton.jit
def normal_cdf(t):
    """erfc(-t / sqrt(2)) / 2.

    In fp32 the rounding of the argument, which counts t^2 times, is taken back to first order:
    d erfc(x) = -2 / sqrt(pi) * exp(-x^2) dx.
    """
    x = -t * SQRT_HALF
    if t.dtype == tl.float64:
        return 0.5 * libdevice.erfc(x)
    else:
        rest = libdevice.fma(-t, SQRT_HALF + t * 0, -x) - t * SQRT_HALF_REST
        slope = TWO_OVER_SQRT_PI * libdevice.exp(-x * x)
        # Infinities have no rest, and would make it NaN.
        return 0.5 * (libdevice.erfc(x) - tl.where(slope > 0, slope * rest, 0.0))
