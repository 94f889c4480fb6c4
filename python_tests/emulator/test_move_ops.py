"""mov and its packing forms, setp, set, selp, slct, special registers, address-space moves."""

import operator

import lanewise
import numpy as np
import pytest

from resnet_kernels import emulator

TYPES = {
    "u16": "uint16",
    "s16": "int16",
    "u32": "uint32",
    "s32": "int32",
    "u64": "uint64",
    "s64": "int64",
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
}
COMPARE = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def values(type_, seed):
    dtype = TYPES[type_]
    return (lanewise.floats if type_[0] == "f" else lanewise.integers)(dtype, seed)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("op", COMPARE)
def test_setp(op, type_):
    a, b = values(type_, 1), values(type_, 2)
    b[::3] = a[::3]
    got = lanewise.run(f"setp.{op}.{type_} %p, %a, %b; selp.u32 %d, 1, 0, %p;", "uint32", a, b)
    ordered = ~(np.isnan(a) | np.isnan(b)) if type_[0] == "f" else True
    np.testing.assert_array_equal(got.astype(bool), COMPARE[op](a, b) & ordered)


@pytest.mark.parametrize("op", [*(f"{c}u" for c in COMPARE), "num", "nan"])
def test_setp_unordered(op):
    a, b = values("f32", 3), values("f32", 4)
    b[::3] = a[::3]
    got = lanewise.run(f"setp.{op}.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;", "uint32", a, b)
    unordered = np.isnan(a) | np.isnan(b)
    expected = {"num": ~unordered, "nan": unordered}.get(op)
    if expected is None:
        expected = COMPARE[op[:-1]](a, b) | unordered
    np.testing.assert_array_equal(got.astype(bool), expected)


@pytest.mark.parametrize(("op", "base"), [("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")])
def test_setp_unsigned_names(op, base):
    a, b = values("u32", 5), values("u32", 6)
    got = lanewise.run(f"setp.{op}.u32 %p, %a, %b; selp.u32 %d, 1, 0, %p;", "uint32", a, b)
    np.testing.assert_array_equal(got.astype(bool), COMPARE[base](a, b))


@pytest.mark.parametrize("combine", ["and", "or", "xor"])
def test_setp_combined_with_two_results(combine):
    a, b = values("s32", 7), values("s32", 8)
    body = (
        f"setp.gt.s32 %p, %a, 0; setp.lt.{combine}.s32 %p|%q, %a, %b, !%p;"
        "selp.u32 %d, 1, 0, %p; selp.u32 %t, 2, 0, %q; or.b32 %d, %d, %t;"
    )
    c = ~(a > 0)
    function = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[combine]
    expected = function(a < b, c) + 2 * function(~(a < b), c)
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b), expected)


def test_setp_f16x2():
    a, b = lanewise.floats("float16", 9, 1024), lanewise.floats("float16", 10, 1024)
    body = (
        "setp.lt.f16x2 %p|%q, %a, %b; selp.u32 %d, 1, 0, %p; selp.u32 %t, 2, 0, %q;"
        "or.b32 %d, %d, %t;"
    )
    got = lanewise.run(body, "uint32", a.view("uint32"), b.view("uint32"))
    less = a < b
    np.testing.assert_array_equal(got, less[::2] + 2 * less[1::2])


def test_set():
    a, b = values("f32", 11), values("f32", 12)
    got = lanewise.run("set.lt.u32.f32 %d, %a, %b;", "uint32", a, b)
    np.testing.assert_array_equal(got, np.where(a < b, 0xFFFFFFFF, 0))
    got = lanewise.run("set.lt.f32.f32 %d, %a, %b;", "float32", a, b)
    np.testing.assert_array_equal(got, (a < b).astype(np.float32))


def test_slct():
    a, b, c = values("u32", 13), values("u32", 14), values("s32", 15)
    got = lanewise.run("slct.u32.s32 %d, %a, %b, %c;", "uint32", a, b, c)
    np.testing.assert_array_equal(got, np.where(c >= 0, a, b))
    f = values("f32", 16)
    got = lanewise.run("slct.u32.f32 %d, %a, %b, %c;", "uint32", a, b, f)
    np.testing.assert_array_equal(got, np.where(f >= 0, a, b))


def test_predicate_logic():
    a = values("u32", 17)
    body = (
        "setp.gt.u32 %p, %a, 1000; and.b32 %t, %a, 1; setp.ne.u32 %q, %t, 0;"
        "{op} selp.u32 %d, 1, 0, %p;"
    )
    big, odd = a > 1000, (a & 1) != 0
    for op, expected in (
        ("and.pred %p, %p, %q;", big & odd),
        ("or.pred %p, %p, %q;", big | odd),
        ("xor.pred %p, %p, %q;", big ^ odd),
        ("not.pred %p, %p;", ~big),
        ("mov.pred %p, %q;", odd),
    ):
        got = lanewise.run(body.replace("{op}", op), "uint32", a)
        np.testing.assert_array_equal(got.astype(bool), expected)


def test_pack_and_unpack():
    a, b = values("u32", 18), values("u32", 19)
    got = lanewise.run("mov.b64 %d, {%a, %b};", "uint64", a, b)
    np.testing.assert_array_equal(got, a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32))
    wide = values("u64", 20)
    got = lanewise.run("mov.b64 {_, %d}, %a;", "uint32", wide)
    np.testing.assert_array_equal(got, wide >> np.uint64(32))
    declared = ".reg .b16 %h<4>;"
    got = lanewise.run(
        "mov.b64 {%h0, %h1, %h2, %h3}, %a; mov.b32 %d, {%h3, %h1};",
        "uint32",
        wide,
        declarations=declared,
    )
    halves = wide.view(np.uint16).reshape(-1, 4)
    np.testing.assert_array_equal(got, halves[:, 3] | halves[:, 1].astype(np.uint32) << 16)


def test_immediates():
    a = values("u32", 21)
    for text, bits in (
        ("0f3FC00000", 0x3FC00000),
        ("-8388608", 0xFF800000),
        ("0x1F", 0x1F),
        ("1.5", 0x3FC00000),
        ("0b101", 5),
        ("017", 15),
    ):
        type_ = "f32" if "f" in text[:2] or "." in text else "u32"
        got = lanewise.run(f"mov.{type_} %d, {text};", "uint32", a)
        assert (got == bits).all(), text
    got = lanewise.run("mov.f64 %d, 0d3FF8000000000000;", "float64", a)
    assert (got == 1.5).all()


SPECIALS = """.version 8.8
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out) {
.reg .b32 %r<8>; .reg .b64 %x;
mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y;
mad.lo.u32 %r1, %r2, %r4, %r1; mad.lo.u32 %r0, %r1, %r3, %r0;
mov.u32 %r5, %ctaid.y; mov.u32 %r6, %nctaid.x; mov.u32 %r7, %ctaid.x;
mad.lo.u32 %r5, %r5, %r6, %r7; mad.lo.u32 %r5, %r5, 60, %r0;
ld.param.u64 %x, [out]; mad.wide.u32 %x, %r5, 16, %x;
mov.u32 %r1, %laneid; mov.u32 %r2, %warpid; mov.u32 %r3, %lanemask_lt; mov.u32 %r4, %nctaid.y;
st.global.v4.u32 [%x], {%r1, %r2, %r3, %r4};
ret;
}"""


def test_special_registers_in_three_dimensions():
    out = np.zeros((3 * 2, 60, 4), np.uint32)
    emulator.launch(SPECIALS, "k", (3, 2), (5, 4, 3), [out])
    thread = np.arange(60)
    expected = np.stack([thread % 32, thread // 32, (1 << thread % 32) - 1, np.full(60, 2)], -1)
    np.testing.assert_array_equal(out, np.broadcast_to(expected, out.shape))


@pytest.mark.parametrize("register", ["%clock", "%globaltimer_lo"])
def test_clock_advances(register):
    a = values("u32", 22)
    got = lanewise.run(
        f"mov.u32 %t, {register}; mov.u32 %d, {register}; sub.u32 %d, %d, %t;", "uint32", a
    )
    assert (got > 0).all()
