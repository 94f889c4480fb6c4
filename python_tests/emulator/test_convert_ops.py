"""cvt between all types in all rounding modes, against exact rationals."""

import math
from fractions import Fraction

import lanewise
import numpy as np
import pytest
from exact import decode, integral, round_bits

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


def clamp_float(value, dtype):
    info = np.iinfo(dtype)
    return max(info.min, min(info.max, value))


@pytest.mark.parametrize("to", INT)
@pytest.mark.parametrize("source", INT)
def test_integer_to_integer(source, to):
    a = lanewise.integers(INT[source], 1)
    got = lanewise.run(f"cvt.{to}.{source} %d, %a;", INT[to], a)
    np.testing.assert_array_equal(got, a.astype(INT[to]))
    if source != to:
        got = lanewise.run(f"cvt.sat.{to}.{source} %d, %a;", INT[to], a)
        expected = [clamp_float(int(x), INT[to]) for x in a]
        np.testing.assert_array_equal(got, np.array(expected, INT[to]))


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("to", FLOAT)
@pytest.mark.parametrize("source", ["u16", "s32", "u64", "s64"])
def test_integer_to_float(source, to, mode):
    a = lanewise.integers(INT[source], 2)
    got = lanewise.run(f"cvt.{mode}.{to}.{source} %d, %a;", FLOAT[to], a)
    expected = [round_bits(Fraction(int(x)), to, mode) for x in a]
    np.testing.assert_array_equal(got, np.array(expected, FLOAT[to]))


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize("source", FLOAT)
@pytest.mark.parametrize("to", ["s8", "u16", "s32", "u32", "s64", "u64"])
def test_float_to_integer(source, to, mode):
    a = float_bits(source, 3)
    got = lanewise.run(f"cvt.{mode}.{to}.{source} %d, %a;", INT[to], a)
    bits = 8 * np.dtype(INT[to]).itemsize
    for x, result in zip(a.tolist(), got.tolist(), strict=True):
        value = decode(x, source)
        if isinstance(value, float) and math.isnan(value):
            # PTX: zero, but 1 << (bits - 1) where source or result is 64 bits wide
            wide = source == "f64" or bits == 64
            expected = np.array(1 << (bits - 1), np.uint64).astype(INT[to]) if wide else 0
        elif isinstance(value, float):
            expected = clamp_float(10**30 if value > 0 else -(10**30), INT[to])
        else:
            expected = clamp_float(integral(value, mode[:2]), INT[to])
        assert result == expected, (hex(x), value)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(
    ("source", "to"),
    [
        ("f64", "f32"),
        ("f64", "f16"),
        ("f32", "f16"),
        ("f32", "bf16"),
        ("f64", "bf16"),
        ("bf16", "f16"),
        ("f16", "bf16"),
    ],
)
def test_float_to_narrower_float(source, to, mode):
    a = float_bits(source, 4, 1024)
    a[1::4] = [
        round_bits(Fraction(int(v)) * Fraction(2) ** -int(e), source)
        for v, e in zip(
            np.random.default_rng(5).integers(1, 4096, len(a[1::4])),
            np.random.default_rng(6).integers(0, 40, len(a[1::4])),
            strict=True,
        )
    ]
    got = lanewise.run(f"cvt.{mode}.{to}.{source} %d, %a;", FLOAT[to], a)
    check_floats(a, got, source, to, mode)


def check_floats(a, got, source, to, mode):
    for x, result in zip(a.tolist(), got.tolist(), strict=True):
        value = decode(x, source)
        back = decode(result, to)
        if isinstance(value, float):
            assert back == value or (math.isnan(value) and math.isnan(back))
            continue
        negative = bool(x >> (8 * a.itemsize - 1))
        assert result == round_bits(value, to, mode, negative), (hex(x), hex(result))


@pytest.mark.parametrize(
    ("source", "to"), [("f16", "f32"), ("bf16", "f32"), ("f32", "f64"), ("f16", "f64")]
)
def test_float_to_wider_float(source, to):
    a = float_bits(source, 7)
    got = lanewise.run(f"cvt.{to}.{source} %d, %a;", FLOAT[to], a)
    check_floats(a, got, source, to, "rn")


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize("fmt", ["f32", "f64"])
def test_round_to_integral_value(fmt, mode):
    a = float_bits(fmt, 8)
    got = lanewise.run(f"cvt.{mode}.{fmt}.{fmt} %d, %a;", FLOAT[fmt], a)
    for x, result in zip(a.tolist(), got.tolist(), strict=True):
        value = decode(x, fmt)
        if not isinstance(value, float):
            negative = bool(x >> (8 * a.itemsize - 1))
            assert result == round_bits(Fraction(integral(value, mode[:2])), fmt, "rn", negative)


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
