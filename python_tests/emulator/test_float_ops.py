"""f32, f64, f16 and bf16 arithmetic against exact rationals rounded once."""

import math
from fractions import Fraction

import lanewise
import numpy as np
import pytest
from exact import FORMATS, decode, round_bits

DTYPES = {"f16": "float16", "bf16": "uint16", "f32": "float32", "f64": "float64"}
NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF}


def raw(values):
    return values.view(f"u{values.itemsize}")


def operands(fmt, seed, count=512):
    """Bit patterns of a format, many of similar size so that sums cancel and round."""
    if fmt == "bf16":
        bits = raw(lanewise.floats("float32", seed, count)) >> np.uint32(16)
        return bits.astype(np.uint16)
    return lanewise.floats(DTYPES[fmt], seed, count)


def is_nan(bits, fmt):
    return isinstance(decode(bits, fmt), float) and math.isnan(decode(bits, fmt))


def negative(bits, fmt):
    return bool(bits >> sum(FORMATS[fmt]) & 1)


def exact(op, fmt, mode, bits):
    """The correctly rounded result's bits, or None for NaN; infinities by Python's own floats."""
    values = [decode(b, fmt) for b in bits]
    neg = [negative(b, fmt) for b in bits]
    special = any(isinstance(v, float) for v in values)
    if special or (op in ("div", "rcp") and values[-1] == 0) or (op == "sqrt" and neg[0]):
        return special_result(op, fmt, values, neg)
    if op == "sqrt":
        return sqrt_bits(values[0], fmt, mode)
    product_negative = neg[0] != neg[1] if len(neg) > 1 else neg[0]
    if op == "fma":
        exact_value, signs = values[0] * values[1] + values[2], (product_negative, neg[2])
    elif op in ("add", "sub"):
        sign = -1 if op == "sub" else 1
        exact_value = values[0] + sign * values[1]
        signs = (neg[0], neg[1] != (op == "sub"))
    else:
        exact_value = {
            "mul": lambda: values[0] * values[1],
            "div": lambda: values[0] / values[1],
            "rcp": lambda: 1 / values[0],
        }[op]()
        signs = (product_negative, product_negative)
    zero_negative = signs[0] if signs[0] == signs[1] else mode == "rm"
    return round_bits(exact_value, fmt, mode, zero_negative)


def special_result(op, fmt, values, neg):
    f = [
        float(v) if isinstance(v, float) or v else (-0.0 if n else 0.0)
        for v, n in zip(values, neg, strict=True)
    ]
    f = [math.copysign(1.0, v) if math.isfinite(v) and v else v for v in f]  # only sign matters
    with np.errstate(all="ignore"):
        f = [np.float64(v) for v in f]
        r = {
            "add": lambda: f[0] + f[1],
            "sub": lambda: f[0] - f[1],
            "mul": lambda: f[0] * f[1],
            "div": lambda: f[0] / f[1],
            "rcp": lambda: 1 / f[0],
            "sqrt": lambda: np.sqrt(f[0]),
            "fma": lambda: f[0] * f[1] + f[2],
        }[op]()
    if math.isnan(r):
        return None
    if math.isinf(r):
        mantissa, exponent = FORMATS[fmt]
        return ((1 << exponent) - 1) << mantissa | (int(r < 0) << (mantissa + exponent))
    assert r == 0
    return int(math.copysign(1, r) < 0) << sum(FORMATS[fmt])


def sqrt_bits(value, fmt, mode):
    """The square root from an integer root with sticky bits."""
    if value == 0:
        return 0
    shift = 800  # below half the smallest subnormal's exponent
    scaled = value * Fraction(4) ** shift
    root = math.isqrt(scaled.numerator // scaled.denominator)
    exact_root = Fraction(root) * root == scaled
    approximate = Fraction(2 * root + (not exact_root), 2) / Fraction(2) ** shift
    return round_bits(approximate, fmt, mode)


def check(op, fmt, mode, got, *inputs):
    bits = [raw(i).tolist() for i in inputs]
    for i, result in enumerate(raw(got).tolist()):
        lane = [b[i] for b in bits]
        expected = exact(op, fmt, mode, lane)
        if expected is None:
            assert is_nan(result, fmt), (op, [hex(b) for b in lane], hex(result))
            assert result == NAN.get(fmt, result)
        else:
            assert result == expected, (
                op,
                mode,
                [hex(b) for b in lane],
                hex(result),
                hex(expected),
            )


MODES = ("rn", "rz", "rm", "rp")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", ["f32", "f64"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
def test_binary(op, fmt, mode):
    a, b = operands(fmt, 1), operands(fmt, 2)
    got = lanewise.run(f"{op}.{mode}.{fmt} %d, %a, %b;", DTYPES[fmt], a, b)
    check(op, fmt, mode, got, a, b)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", ["f32", "f64"])
def test_fma(fmt, mode):
    a, b, c = (operands(fmt, s) for s in (3, 4, 5))
    c[::3] = -(a * b)[::3]  # cancellation leaves the rounding error of the product
    got = lanewise.run(f"fma.{mode}.{fmt} %d, %a, %b, %c;", DTYPES[fmt], a, b, c)
    check("fma", fmt, mode, got, a, b, c)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", ["f32", "f64"])
@pytest.mark.parametrize("op", ["sqrt", "rcp"])
def test_unary(op, fmt, mode):
    a = operands(fmt, 6)
    check(op, fmt, mode, lanewise.run(f"{op}.{mode}.{fmt} %d, %a;", DTYPES[fmt], a), a)


@pytest.mark.parametrize("fmt", ["f16", "bf16"])
@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_half_binary(op, fmt):
    a, b = operands(fmt, 7), operands(fmt, 8)
    got = lanewise.run(f"{op}.rn.{fmt} %d, %a, %b;", DTYPES[fmt], a, b)
    check(op, fmt, "rn", got, a, b)


@pytest.mark.parametrize("fmt", ["f16", "bf16"])
def test_half_fma(fmt):
    a, b, c = (operands(fmt, s, 2048) for s in (9, 10, 11))
    got = lanewise.run(f"fma.rn.{fmt} %d, %a, %b, %c;", DTYPES[fmt], a, b, c)
    check("fma", fmt, "rn", got, a, b, c)


@pytest.mark.parametrize("fmt", ["f16", "bf16"])
@pytest.mark.parametrize("op", ["add", "mul", "fma"])
def test_packed_halves(op, fmt):
    a, b, c = (operands(fmt, s, 1024) for s in (12, 13, 14))
    sources = [a, b, c][: 3 if op == "fma" else 2]
    packed = [raw(s).view("uint32") for s in sources]
    names = ", ".join(["%a", "%b", "%c"][: len(sources)])
    got = lanewise.run(f"{op}.rn.{fmt}x2 %d, {names};", "uint32", *packed)
    check(op, fmt, "rn", got.view(DTYPES[fmt]), *sources)


@pytest.mark.parametrize("fmt", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("op", ["min", "max", "min.NaN", "max.NaN"])
def test_min_max(op, fmt):
    if op.endswith("NaN") and fmt == "f64":
        op = op[:3]
    a, b = operands(fmt, 15), operands(fmt, 16)
    b[::7] = a[::7]
    got = raw(lanewise.run(f"{op}.{fmt} %d, %a, %b;", DTYPES[fmt], a, b)).tolist()
    for x, y, result in zip(raw(a).tolist(), raw(b).tolist(), got, strict=True):
        nans = is_nan(x, fmt) + is_nan(y, fmt)
        if nans == 2 or (nans and op.endswith("NaN")):
            assert is_nan(result, fmt)
        elif nans:
            assert result == (y if is_nan(x, fmt) else x)
        else:
            key = lambda v: (decode(v, fmt), not negative(v, fmt))  # noqa: E731
            assert result == (min if op.startswith("min") else max)(x, y, key=key)


@pytest.mark.parametrize("fmt", ["f32", "f64", "f16", "bf16"])
def test_abs_neg(fmt):
    a = operands(fmt, 17)
    top = 1 << sum(FORMATS[fmt])
    got = raw(lanewise.run(f"abs.{fmt} %d, %a;", DTYPES[fmt], a))
    np.testing.assert_array_equal(got, raw(a) & (top - 1))
    got = raw(lanewise.run(f"neg.{fmt} %d, %a;", DTYPES[fmt], a))
    np.testing.assert_array_equal(got, raw(a) ^ top)


def test_copysign():
    a, b = operands("f32", 18), operands("f32", 19)
    got = raw(lanewise.run("copysign.f32 %d, %a, %b;", "float32", a, b))
    np.testing.assert_array_equal(got, raw(a) & 0x80000000 | raw(b) & 0x7FFFFFFF)


@pytest.mark.parametrize("op", ["add", "mul"])
def test_flush_to_zero_and_saturation(op):
    a, b = operands("f32", 20), operands("f32", 21)
    a[: len(a) // 2] *= np.float32(2.0**-126)
    with np.errstate(all="ignore"):
        flushed = [np.where(abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x) for x in (a, b)]
        full = flushed[0] + flushed[1] if op == "add" else flushed[0] * flushed[1]
        expected = np.where(abs(full) < 2.0**-126, np.copysign(np.float32(0), full), full)
    got = lanewise.run(f"{op}.ftz.f32 %d, %a, %b;", "float32", a, b)
    np.testing.assert_array_equal(got, expected)
    zeros = expected == 0
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(expected[zeros]))
    got = lanewise.run(f"{op}.sat.f32 %d, %a, %b;", "float32", a, b)
    with np.errstate(all="ignore"):
        plain = a + b if op == "add" else a * b
    np.testing.assert_array_equal(got, np.nan_to_num(np.clip(plain, 0, 1), nan=0.0))


FUNCTIONS = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "rcp": lambda x: 1 / x,
    "sqrt": np.sqrt,
}


@pytest.mark.parametrize("op", FUNCTIONS)
def test_approximate_functions(op):
    a = operands("f32", 22)
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[op](a.astype(np.float64)).astype(np.float32)
    got = lanewise.run(f"{op}.approx.f32 %d, %a;", "float32", a)
    np.testing.assert_array_max_ulp(
        np.where(np.isfinite(got), got, 0), np.where(np.isfinite(expected), expected, 0), 1
    )
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))


@pytest.mark.parametrize("form", ["div.full.f32", "div.approx.f32", "div.rn.f32"])
def test_division_forms(form):
    a, b = (np.random.default_rng(s).standard_normal(512).astype(np.float32) for s in (23, 24))
    np.testing.assert_array_max_ulp(lanewise.run(f"{form} %d, %a, %b;", "float32", a, b), a / b, 2)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("finite", np.isfinite),
        ("infinite", np.isinf),
        ("number", lambda x: ~np.isnan(x)),
        ("notanumber", np.isnan),
        ("normal", lambda x: np.isfinite(x) & (abs(x) >= np.finfo(x.dtype).tiny)),
        ("subnormal", lambda x: (x != 0) & (abs(x) < np.finfo(x.dtype).tiny)),
    ],
)
def test_testp(kind, model):
    for fmt in ("f32", "f64"):
        a = operands(fmt, 25)
        got = lanewise.run(f"testp.{kind}.{fmt} %p, %a; selp.u32 %d, 1, 0, %p;", "uint32", a)
        np.testing.assert_array_equal(got.astype(bool), model(a))
