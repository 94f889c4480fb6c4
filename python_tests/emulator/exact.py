"""Exact models: rounding of rationals to any binary float format, and bit operations on ints."""

from fractions import Fraction

import numpy as np

# mantissa bits stored, exponent bits
FORMATS = {"f16": (10, 5), "bf16": (7, 8), "tf32": (10, 8), "f32": (23, 8), "f64": (52, 11)}


def integral(value: Fraction, mode: str) -> int:
    """value rounded to an integer; mode rn, rz, rm, rp or rna."""
    floor = value.numerator // value.denominator
    rest = value - floor
    if rest == 0 or mode == "rm":
        return floor
    if mode == "rp":
        return floor + 1
    if mode == "rz":
        return floor + (value < 0)
    if rest != Fraction(1, 2):
        return floor + (rest > Fraction(1, 2))
    if mode == "rna":
        return floor + (value > 0)
    return floor + (floor & 1)


def round_bits(value: Fraction, fmt: str, mode: str = "rn", negative_zero: bool = False) -> int:
    """Bits of the rational `value` in a format."""
    mantissa, exponent = FORMATS[fmt]
    bias = (1 << (exponent - 1)) - 1
    top = 1 << (mantissa + exponent)
    infinity = ((1 << exponent) - 1) << mantissa
    if value == 0:
        return top if negative_zero else 0
    sign = top if value < 0 else 0
    size = abs(value)
    power = size.numerator.bit_length() - size.denominator.bit_length()
    while size < Fraction(2) ** power:
        power -= 1
    while size >= Fraction(2) ** (power + 1):
        power += 1
    power = max(power, 1 - bias)
    step = Fraction(2) ** (power - mantissa)
    units = abs(integral(value / step, mode))
    bits = ((power + bias - 1) << mantissa) + units
    if bits >= infinity:
        away = mode in ("rn", "rna") or ((mode == "rp") == (value > 0) and mode != "rz")
        bits = infinity if away else infinity - 1
    return sign | bits


def decode(bits: int, fmt: str) -> Fraction | float:
    """The value of the bits; a Python float only for infinities and NaN."""
    mantissa, exponent = FORMATS[fmt]
    sign = -1 if bits >> (mantissa + exponent) & 1 else 1
    field = bits >> mantissa & ((1 << exponent) - 1)
    fraction = bits & ((1 << mantissa) - 1)
    bias = (1 << (exponent - 1)) - 1
    if field == (1 << exponent) - 1:
        return float("nan") if fraction else sign * float("inf")
    if field == 0:
        return sign * Fraction(fraction, 1) * Fraction(2) ** (1 - bias - mantissa)
    return sign * Fraction(fraction + (1 << mantissa)) * Fraction(2) ** (field - bias - mantissa)


def bf16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bf16 bits, to nearest even."""
    return np.array([round_bits(Fraction(float(v)), "bf16") for v in values], np.uint16)


def bf16_to_float(bits: np.ndarray) -> np.ndarray:
    """bf16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
