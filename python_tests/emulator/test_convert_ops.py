"""cvt between all types in all rounding modes, against exact rationals."""

import math
from fractions import Fraction

import lanewise
import numpy as np
import pytest
from exact import FORMATS, decode, integral, round_bits

INT = {
    "u8": "uint8",
    "s8": "int8",
    "u16": "uint16",
    "s16": "int16",
    "u32": "uint32",
    "s32": "int32",
    "u64": "uint64",
    "s64": "int64",
}
FLOAT = {"f16": "uint16", "bf16": "uint16", "f32": "uint32", "f64": "uint64"}


def float_bits(fmt, seed, count=512):
    """Bit patterns: random ones, and values near integers, ties and the limits of integers."""
    rng = np.random.default_rng(seed)
    bits = (
        rng.integers(0, 1 << (8 * np.dtype(FLOAT[fmt]).itemsize), count, np.uint64, endpoint=False)
        if fmt != "f64"
        else rng.integers(0, 2**64 - 1, count, np.uint64)
    )
    for i in range(0, count, 2):
        size = Fraction(int(rng.integers(-2000, 2000)), int(rng.choice([1, 2, 4, 1000])))
        if i % 8 == 0:
            size = Fraction(2) ** int(rng.integers(6, 66)) * int(rng.choice([1, -1]))
        bits[i] = round_bits(size, fmt)
    return bits.astype(FLOAT[fmt])


ROUNDINGS = ("rn", "rz", "rm", "rp")


def forms(source, to):
    """(rounding, saturates, flushes subnormals) of every cvt between two types."""
    both_float = source in FLOAT and to in FLOAT
    wider = both_float and np.dtype(FLOAT[to]).itemsize > np.dtype(FLOAT[source]).itemsize
    if (source in INT and to in INT) or wider:
        roundings = ("",)
    elif source == to:
        roundings = ("", *(f"{r}i" for r in ROUNDINGS))
    else:
        roundings = ROUNDINGS if to in FLOAT else tuple(f"{r}i" for r in ROUNDINGS)
    for rounding in roundings:
        for sat in (False, True):
            for ftz in (False, True):
                if sat and (to == "bf16" or (source == to and to in INT)):
                    continue
                if ftz and "f32" not in (source, to):
                    continue
                if not (rounding or sat or ftz) and source == to == "f64":
                    continue
                yield rounding, sat, ftz


def flush(value, fmt, ftz):
    small = not isinstance(value, float) and abs(value) < Fraction(2) ** -126
    return Fraction(0) if ftz and fmt == "f32" and small else value


def to_integer(value, source, to, rounding):
    """Saturated; NaN as PTX says: zero, but 1 << (bits - 1) where either type is 64 bits wide."""
    info = np.iinfo(INT[to])
    if isinstance(value, float):
        if math.isnan(value):
            wide = source == "f64" or info.bits == 64
            return int(np.array(1 << (info.bits - 1), np.uint64).astype(INT[to])) if wide else 0
        return info.max if value > 0 else info.min
    return max(info.min, min(info.max, integral(value, rounding[:2])))


def to_float(value, negative, to, rounding, sat, ftz):
    """Bits of the result, or None for any NaN."""
    if sat:
        value = min(max(value, Fraction(0)), Fraction(1)) if value == value else Fraction(0)
        negative = False
    if isinstance(value, float):
        if math.isnan(value):
            return None
        mantissa, exponent = FORMATS[to]
        infinity = ((1 << exponent) - 1) << mantissa
        return infinity | (value < 0) << (mantissa + exponent)
    if rounding.endswith("i"):
        value, rounding = Fraction(integral(value, rounding[:2])), "rn"
    bits = round_bits(value, to, rounding or "rn", negative)
    if to == "f32" and ftz and not bits & 0x7F800000:
        bits &= 0x80000000
    return bits


@pytest.mark.parametrize("to", [*INT, *FLOAT])
@pytest.mark.parametrize("source", [*INT, *FLOAT])
def test_every_pair_rounding_and_saturation(source, to):
    a = float_bits(source, 3, 128) if source in FLOAT else lanewise.integers(INT[source], 2, 128)
    for rounding, sat, ftz in forms(source, to):
        modifiers = f"{rounding} {'ftz ' * ftz}{'sat ' * sat}{to} {source}".split()
        instruction = ".".join(["cvt", *modifiers])
        got = lanewise.run(f"{instruction} %d, %a;", {**INT, **FLOAT}[to], a)
        for x, result in zip(a.tolist(), got.tolist(), strict=True):
            value = flush(decode(x, source), source, ftz) if source in FLOAT else Fraction(x)
            if to in INT and source in INT:
                info = np.iinfo(INT[to])
                wrapped = int(np.array(x & (1 << info.bits) - 1, np.uint64).astype(INT[to]))
                expected = max(info.min, min(info.max, x)) if sat else wrapped
            elif to in INT:
                expected = to_integer(value, source, to, rounding)
            else:
                negative = source in FLOAT and bool(x >> (8 * a.itemsize - 1))
                expected = to_float(value, negative, to, rounding, sat, ftz)
            if expected is None:
                assert math.isnan(decode(result, to)), (instruction, hex(x))
            else:
                assert result == expected, (instruction, hex(x), value, hex(result))


@pytest.mark.parametrize("mode", ["rna", "rn", "rz"])
def test_tf32(mode):
    a = float_bits("f32", 9)
    got = lanewise.run(f"cvt.{mode}.tf32.f32 %d, %a;", "uint32", a)
    for x, result in zip(a.tolist(), got.tolist(), strict=True):
        value = decode(x, "f32")
        if isinstance(value, float):
            assert math.isnan(value) or decode(result, "f32") == value
        else:
            assert result == round_bits(value, "tf32", mode, bool(x >> 31)) << 13


@pytest.mark.parametrize("form", ["rn", "rz", "rn.relu", "rn.satfinite"])
@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_pairs(to, form):
    a, b = float_bits("f32", 10), float_bits("f32", 11)
    got = lanewise.run(f"cvt.{form}.{to}x2.f32 %d, %a, %b;", "uint32", a, b)
    limit = {"f16": 0x7BFF, "bf16": 0x7F7F}[to]
    for source, part in ((a, got >> 16), (b, got & 0xFFFF)):
        for x, result in zip(source.tolist(), part.tolist(), strict=True):
            value = decode(x, "f32")
            if isinstance(value, float) and math.isnan(value):
                assert result == 0x7FFF
                continue
            infinite = isinstance(value, float)
            expected = (
                (limit + 1 | (value < 0) << 15)
                if infinite
                else round_bits(value, to, form[:2], bool(x >> 31))
            )
            if "satfinite" in form and expected & 0x7FFF == limit + 1:
                expected -= 1
            if "relu" in form and expected >> 15:
                expected = 0
            assert result == expected, (hex(x), hex(result), hex(expected))
