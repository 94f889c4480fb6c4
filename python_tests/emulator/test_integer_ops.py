"""Integer arithmetic, logic, shifts and bit fields, each against Python's unbounded integers."""

import lanewise
import numpy as np
import pytest


def wrap(value: int, dtype: str) -> int:
    bits = np.dtype(dtype).itemsize * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if np.dtype(dtype).kind == "i" and value >> (bits - 1) else value


def divide(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def bits_of(dtype: str) -> int:
    return np.dtype(dtype).itemsize * 8


def unsigned(value: int, dtype: str) -> int:
    return value & ((1 << bits_of(dtype)) - 1)


TYPES = {
    "u16": "uint16",
    "s16": "int16",
    "u32": "uint32",
    "s32": "int32",
    "u64": "uint64",
    "s64": "int64",
    "b16": "uint16",
    "b32": "uint32",
    "b64": "uint64",
}
ALL = ("u16", "s16", "u32", "s32", "u64", "s64")
WIDE = ("u32", "s32", "u64", "s64")
BITS = ("b16", "b32", "b64")

BINARY = {
    "add": (ALL, lambda a, b, t: a + b),
    "sub": (ALL, lambda a, b, t: a - b),
    "mul.lo": (ALL, lambda a, b, t: a * b),
    "mul.hi": (ALL, lambda a, b, t: a * b >> bits_of(t)),
    "min": (ALL, lambda a, b, t: min(a, b)),
    "max": (ALL, lambda a, b, t: max(a, b)),
    "div": (ALL, lambda a, b, t: divide(a, b) if b else -1),
    "rem": (ALL, lambda a, b, t: a - divide(a, b) * b if b else a),
    "and": (BITS, lambda a, b, t: a & b),
    "or": (BITS, lambda a, b, t: a | b),
    "xor": (BITS, lambda a, b, t: a ^ b),
}
UNARY = {
    "abs": (("s16", "s32", "s64"), lambda a, t: abs(a)),
    "neg": (("s16", "s32", "s64"), lambda a, t: -a),
    "not": (BITS, lambda a, t: ~a),
    "cnot": (BITS, lambda a, t: int(a == 0)),
    "brev": (("b32", "b64"), lambda a, t: int(f"{a:0{bits_of(t)}b}"[::-1], 2)),
}
COUNTS = {
    "popc": (("b32", "b64"), lambda a, t: a.bit_count()),
    "clz": (("b32", "b64"), lambda a, t: bits_of(t) - a.bit_length()),
    "bfind": (WIDE, lambda a, t: (a if a >= 0 else ~a).bit_length() - 1),
    "bfind.shiftamt": (
        WIDE,
        lambda a, t: (
            -1
            if a in (0, -1) and not (a == -1 and t[0] == "u")
            else bits_of(t) - (a if a >= 0 else ~a).bit_length()
        ),
    ),
}
TERNARY = {
    "mad.lo": (ALL, lambda a, b, c, t: a * b + c),
    "mad.hi": (ALL, lambda a, b, c, t: (a * b >> bits_of(t)) + c),
    "sad": (ALL, lambda a, b, c, t: c + abs(a - b)),
}


def cases(table):
    return [
        pytest.param(op, t, f, id=f"{op}.{t}") for op, (types, f) in table.items() for t in types
    ]


def check(got, expected, dtype):
    np.testing.assert_array_equal(got, np.array([wrap(int(e), dtype) for e in expected], dtype))


@pytest.mark.parametrize(("op", "type_", "model"), cases(BINARY))
def test_binary(op, type_, model):
    dtype = TYPES[type_]
    a, b = lanewise.integers(dtype, 1), lanewise.integers(dtype, 2)
    got = lanewise.run(f"{op}.{type_} %d, %a, %b;", dtype, a, b)
    check(got, [model(int(x), int(y), dtype) for x, y in zip(a, b, strict=True)], dtype)


@pytest.mark.parametrize(("op", "type_", "model"), cases(UNARY))
def test_unary(op, type_, model):
    dtype = TYPES[type_]
    a = lanewise.integers(dtype, 3)
    check(lanewise.run(f"{op}.{type_} %d, %a;", dtype, a), [model(int(x), dtype) for x in a], dtype)


@pytest.mark.parametrize(("op", "type_", "model"), cases(COUNTS))
def test_counts(op, type_, model):
    dtype = TYPES[type_]
    a = lanewise.integers(dtype, 4)
    got = lanewise.run(f"{op}.{type_} %d, %a;", "uint32", a)
    check(got, [model(int(x), dtype) for x in a], "uint32")


@pytest.mark.parametrize(("op", "type_", "model"), cases(TERNARY))
def test_ternary(op, type_, model):
    dtype = TYPES[type_]
    a, b, c = (lanewise.integers(dtype, s) for s in (5, 6, 7))
    got = lanewise.run(f"{op}.{type_} %d, %a, %b, %c;", dtype, a, b, c)
    check(
        got, [model(int(x), int(y), int(z), dtype) for x, y, z in zip(a, b, c, strict=True)], dtype
    )


@pytest.mark.parametrize("type_", ["u16", "s16", "u32", "s32"])
def test_wide(type_):
    narrow = TYPES[type_]
    wide = narrow.replace("32", "64").replace("16", "32")
    a, b = lanewise.integers(narrow, 8), lanewise.integers(narrow, 9)
    c = lanewise.integers(wide, 10)
    got = lanewise.run(f"mul.wide.{type_} %d, %a, %b;", wide, a, b)
    check(got, [int(x) * int(y) for x, y in zip(a, b, strict=True)], wide)
    got = lanewise.run(f"mad.wide.{type_} %d, %a, %b, %c;", wide, a, b, c)
    check(got, [int(x) * int(y) + int(z) for x, y, z in zip(a, b, c, strict=True)], wide)


@pytest.mark.parametrize("op", ["add", "sub"])
def test_saturating(op):
    a, b = lanewise.integers("int32", 11), lanewise.integers("int32", 12)
    got = lanewise.run(f"{op}.sat.s32 %d, %a, %b;", "int32", a, b)
    sign = 1 if op == "add" else -1
    exact = a.astype(object) + sign * b.astype(object)
    check(got, [max(-(2**31), min(2**31 - 1, int(v))) for v in exact], "int32")


@pytest.mark.parametrize(
    ("op", "type_"),
    [*(("shl", t) for t in BITS), *(("shr", t) for t in (*BITS, "u32", "s16", "s32", "s64"))],
)
def test_shifts(op, type_):
    dtype = TYPES[type_]
    a = lanewise.integers(dtype, 13)
    n = np.random.default_rng(14).integers(0, 80, len(a)).astype(np.uint32)
    got = lanewise.run(f"{op}.{type_} %d, %a, %b;", dtype, a, n)
    model = (lambda x, k: x << k) if op == "shl" else (lambda x, k: x >> k)
    check(got, [model(int(x), int(k)) for x, k in zip(a, n, strict=True)], dtype)


@pytest.mark.parametrize("direction", ["l", "r"])
@pytest.mark.parametrize("kind", ["wrap", "clamp"])
def test_funnel_shift(direction, kind):
    low, high = lanewise.integers("uint32", 15), lanewise.integers("uint32", 16)
    n = np.random.default_rng(17).integers(0, 64, len(low)).astype(np.uint32)
    got = lanewise.run(f"shf.{direction}.{kind}.b32 %d, %a, %b, %c;", "uint32", low, high, n)
    expected = []
    for a, b, c in zip(low.tolist(), high.tolist(), n.tolist(), strict=True):
        k = min(c, 32) if kind == "clamp" else c % 32
        pair = b << 32 | a
        expected.append(pair >> k if direction == "r" else pair << k >> 32)
    check(got, expected, "uint32")


@pytest.mark.parametrize("table", [0x00, 0x1B, 0x80, 0x96, 0xE8, 0xFE, 0xFF, 0x5A])
def test_lop3(table):
    a, b, c = (lanewise.integers("uint32", s) for s in (18, 19, 20))
    got = lanewise.run(f"lop3.b32 %d, %a, %b, %c, {table};", "uint32", a, b, c)
    expected = np.zeros_like(a)
    for bit in range(32):
        index = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1)
        expected |= (np.uint32(table) >> index & 1) << np.uint32(bit)
    np.testing.assert_array_equal(got, expected)


def test_prmt():
    a, b, c = (lanewise.integers("uint32", s) for s in (21, 22, 23))
    got = lanewise.run("prmt.b32 %d, %a, %b, %c;", "uint32", a, b, c)
    source = np.stack([x >> s & 255 for x in (a, b) for s in (0, 8, 16, 24)])
    expected = np.zeros_like(a)
    for i in range(4):
        selector = c >> 4 * i & 15
        byte = source[selector & 7, np.arange(len(a))]
        byte = np.where(selector & 8, np.where(byte & 128, 255, 0), byte)
        expected |= byte.astype(np.uint32) << np.uint32(8 * i)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("mode", "selectors"),
    [
        ("f4e", ["3210", "4321", "5432", "6543"]),
        ("b4e", ["5670", "6701", "7012", "0123"]),
        ("rc8", ["0000", "1111", "2222", "3333"]),
        ("ecl", ["3210", "3211", "3222", "3333"]),
        ("ecr", ["0000", "1110", "2210", "3210"]),
        ("rc16", ["1010", "3232", "1010", "3232"]),
    ],
)
def test_prmt_modes(mode, selectors):
    a, b = lanewise.integers("uint32", 24), lanewise.integers("uint32", 25)
    c = np.arange(len(a), dtype=np.uint32)
    got = lanewise.run(f"prmt.b32.{mode} %d, %a, %b, %c;", "uint32", a, b, c)
    source = [
        [int(x) >> s & 255 for x in (p, q) for s in (0, 8, 16, 24)]
        for p, q in zip(a, b, strict=True)
    ]
    expected = [
        int.from_bytes(bytes(s[int(d)] for d in selectors[i & 3][::-1]), "little")
        for i, s in enumerate(source)
    ]
    check(got, expected, "uint32")


@pytest.mark.parametrize("type_", WIDE)
def test_bfe(type_):
    dtype = TYPES[type_]
    a = lanewise.integers(dtype, 26)
    rng = np.random.default_rng(27)
    pos, length = (rng.integers(0, 70, len(a)).astype(np.uint32) for _ in range(2))
    got = lanewise.run(f"bfe.{type_} %d, %a, %b, %c;", dtype, a, pos, length)
    bits = bits_of(dtype)
    expected = []
    for x, p, n in zip(a.tolist(), pos.tolist(), length.tolist(), strict=True):
        raw = unsigned(x, dtype)
        sign = raw >> min(p + n - 1, bits - 1) & 1 if n and type_[0] == "s" else 0
        field = [raw >> p + i & 1 if i < n and p + i < bits else sign for i in range(bits)]
        expected.append(sum(bit << i for i, bit in enumerate(field)))
    check(got, expected, dtype)


@pytest.mark.parametrize("type_", ["b32", "b64"])
def test_bfi(type_):
    dtype = TYPES[type_]
    a, b = lanewise.integers(dtype, 28), lanewise.integers(dtype, 29)
    c = np.random.default_rng(30).integers(0, 70 << 8, len(a)).astype(np.uint32)
    body = f"shr.u32 %i, %c, 8; and.b32 %t, %c, 255; bfi.{type_} %d, %a, %b, %t, %i;"
    restore = "mov.u32 %i, %tid.x; mov.u32 %t, %ctaid.x; mad.lo.u32 %i, %t, 64, %i;"
    got = lanewise.run(body + restore, dtype, a, b, c)
    expected = []
    for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
        pos, length = z & 255, z >> 8
        for i in range(length):
            if pos + i < bits_of(dtype):
                y = y & ~(1 << pos + i) | (x >> i & 1) << pos + i
        expected.append(y)
    check(got, expected, dtype)


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_bmsk_szext(mode):
    a = lanewise.integers("int32", 31)
    n = np.random.default_rng(32).integers(0, 40, len(a)).astype(np.uint32)
    pos = np.random.default_rng(33).integers(0, 40, len(a)).astype(np.uint32)
    got = lanewise.run(f"bmsk.{mode}.b32 %d, %a, %b;", "uint32", pos, n)
    pairs = list(zip(pos.tolist(), n.tolist(), strict=True))
    if mode == "wrap":
        pairs = [(p % 32, k % 32) for p, k in pairs]
    check(got, [((1 << k) - 1) << p & 0xFFFFFFFF for p, k in pairs], "uint32")
    got = lanewise.run(f"szext.{mode}.s32 %d, %a, %b;", "int32", a, n)
    expected = []
    for x, k in zip(a.tolist(), n.tolist(), strict=True):
        k = k % 32 if mode == "wrap" else k
        low = x & ((1 << k) - 1)
        expected.append(x if k >= 32 else low - (1 << k) if k and low >> (k - 1) else low)
    check(got, expected, "int32")


@pytest.mark.parametrize("bits", [32, 64])
def test_carry_chains(bits):
    dtype = f"uint{bits}"
    a, b, c = (lanewise.integers(dtype, s) for s in (34, 35, 36))
    size = f"u{bits}"
    chain = f"add.cc.{size} %d, %a, %b; addc.{size} %d, %c, 0;"
    got = lanewise.run(chain, dtype, a, b, c)
    exact = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    check(got, [z + (x + y >> bits) for x, y, z in exact], dtype)
    chain = f"sub.cc.{size} %d, %a, %b; subc.{size} %d, %c, 0;"
    got = lanewise.run(chain, dtype, a, b, c)
    exact = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    check(got, [z - (x < y) for x, y, z in exact], dtype)
    chain = f"mad.lo.cc.{size} %d, %a, %b, %c; madc.hi.{size} %d, %a, %b, 0;"
    got = lanewise.run(chain, dtype, a, b, c)
    exact = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    check(got, [x * y + z >> bits for x, y, z in exact], dtype)


@pytest.mark.parametrize("types", ["u32.u32", "u32.s32", "s32.u32", "s32.s32"])
def test_dot_products(types):
    a, b, c = (lanewise.integers("uint32", s) for s in (37, 38, 39))
    sign_a, sign_b = (t[0] == "s" for t in types.split("."))

    def part(word, i, bits, sign):
        v = word >> i * bits & (1 << bits) - 1
        return v - (1 << bits) if sign and v >> (bits - 1) else v

    got = lanewise.run(f"dp4a.{types} %d, %a, %b, %c;", "uint32", a, b, c)
    exact = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    check(
        got,
        [
            z + sum(part(x, i, 8, sign_a) * part(y, i, 8, sign_b) for i in range(4))
            for x, y, z in exact
        ],
        "uint32",
    )
    for half, first in (("lo", 0), ("hi", 2)):
        got = lanewise.run(f"dp2a.{half}.{types} %d, %a, %b, %c;", "uint32", a, b, c)
        check(
            got,
            [
                z + sum(part(x, i, 16, sign_a) * part(y, first + i, 8, sign_b) for i in range(2))
                for x, y, z in exact
            ],
            "uint32",
        )


@pytest.mark.parametrize("type_", ["u32", "s32"])
def test_mul24(type_):
    dtype = TYPES[type_]
    a, b, c = (lanewise.integers(dtype, s) for s in (40, 41, 42))

    def low24(v):
        v &= 0xFFFFFF
        return v - (1 << 24) if type_ == "s32" and v >> 23 else v

    exact = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    for part, shift in (("lo", 0), ("hi", 16)):
        got = lanewise.run(f"mul24.{part}.{type_} %d, %a, %b;", dtype, a, b)
        check(got, [low24(x) * low24(y) >> shift for x, y, _ in exact], dtype)
        got = lanewise.run(f"mad24.{part}.{type_} %d, %a, %b, %c;", dtype, a, b, c)
        check(got, [(low24(x) * low24(y) >> shift) + z for x, y, z in exact], dtype)
