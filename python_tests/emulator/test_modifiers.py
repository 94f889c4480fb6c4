"""Modifiers that the tests of single opcodes leave out.

.ftz, comparisons of set, orders and scopes, cache hints, atomics that return, carry chains, and
instructions without an effect on values.
"""

import operator

import lanewise
import numpy as np
import pytest

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_90\n.address_size 64\n"


def flush(values):
    small = np.abs(values) < np.float32(2.0**-126)
    return np.where(small, np.copysign(np.float32(0), values), values).astype(np.float32)


def subnormal_rich(seed):
    a = lanewise.floats("float32", seed)
    a[::3] = (a[::3].view(np.uint32) & 0x807FFFFF).view(np.float32)
    a[1::5] *= np.float32(2.0**-120)
    return a


@pytest.mark.parametrize(
    "instruction",
    [
        *("abs.ftz.f32 %d, %a", "neg.ftz.f32 %d, %a"),
        *("sin.approx.ftz.f32 %d, %a", "cos.approx.ftz.f32 %d, %a"),
        *("ex2.approx.ftz.f32 %d, %a", "lg2.approx.ftz.f32 %d, %a", "rsqrt.approx.ftz.f32 %d, %a"),
        *("rcp.rn.ftz.f32 %d, %a", "sqrt.rn.ftz.f32 %d, %a", "rcp.approx.ftz.f32 %d, %a"),
        *("add.ftz.f32 %d, %a, %b", "sub.ftz.f32 %d, %a, %b", "mul.ftz.f32 %d, %a, %b"),
        *("add.rz.ftz.f32 %d, %a, %b", "div.rn.ftz.f32 %d, %a, %b", "div.full.ftz.f32 %d, %a, %b"),
        *("min.ftz.f32 %d, %a, %b", "max.ftz.f32 %d, %a, %b"),
        *("fma.rn.ftz.f32 %d, %a, %b, %c", "mad.rn.ftz.f32 %d, %a, %b, %c"),
        *("sub.rn.ftz.sat.f32 %d, %a, %b", "fma.rp.ftz.sat.f32 %d, %a, %b, %c"),
    ],
)
def test_flushing_is_of_operands_and_result(instruction):
    operands = [subnormal_rich(seed) for seed in range(instruction.count(","))]
    flushed = [flush(x) for x in operands]
    got = lanewise.run(instruction + ";", "float32", *operands)
    plain = lanewise.run(instruction.replace(".ftz", "") + ";", "float32", *flushed)
    np.testing.assert_array_equal(got.view("u4"), flush(plain).view("u4"))
    assert not ((got != 0) & (np.abs(got) < np.float32(2.0**-126))).any()


COMPARE = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def compare(op, a, b):
    unordered = np.isnan(a) | np.isnan(b) if a.dtype.kind == "f" else np.zeros(len(a), bool)
    if op in ("num", "nan"):
        return unordered == (op == "nan")
    if op in UNSIGNED:
        return COMPARE[UNSIGNED[op]](a, b)
    if op.endswith("u") and op not in COMPARE:
        return COMPARE[op[:-1]](a, b) | unordered
    return COMPARE[op](a, b) & ~unordered


@pytest.mark.parametrize("combine", ["", ".and", ".or", ".xor"])
@pytest.mark.parametrize("type_", ["f32", "f64", "u32", "s32", "s64"])
def test_set_and_setp(type_, combine):
    dtype = {"f": "float", "u": "uint", "s": "int"}[type_[0]] + type_[1:]
    make = lanewise.floats if type_[0] == "f" else lanewise.integers
    a, b = make(dtype, 1), make(dtype, 2)
    b[::4] = a[::4]
    ops = [*COMPARE, *(UNSIGNED if type_[0] == "u" else ())]
    if type_[0] == "f":
        ops += ["equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]
    lane = np.arange(len(a)) % 64 % 3 == 0
    with_lane = {"": lambda r: r, ".and": lane.__and__, ".or": lane.__or__, ".xor": lane.__xor__}
    tail = ", %q" if combine else ""
    start = "mov.u32 %t, %tid.x; rem.u32 %t, %t, 3; setp.eq.u32 %q, %t, 0;"
    for op in ops:
        expected = with_lane[combine](compare(op, a, b))
        body = f"{start} set.{op}{combine}.u32.{type_} %d, %a, %b{tail};"
        np.testing.assert_array_equal(
            lanewise.run(body, "uint32", a, b), np.where(expected, 0xFFFFFFFF, 0)
        )
        body = f"{start} setp.{op}{combine}.{type_} %p, %a, %b{tail}; selp.u32 %d, 1, 0, %p;"
        np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b), expected)
        body = f"{start} set.{op}{combine}.f32.{type_} %d, %a, %b{tail};"
        np.testing.assert_array_equal(lanewise.run(body, "float32", a, b), expected)


def test_comparisons_flush():
    a, b = subnormal_rich(5), subnormal_rich(6)
    x, y = flush(a), flush(b)
    body = "setp.lt.ftz.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;"
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b), x < y)
    got = lanewise.run("set.ge.ftz.u32.f32 %d, %a, %b;", "uint32", a, b)
    np.testing.assert_array_equal(got, np.where(x >= y, 0xFFFFFFFF, 0))
    got = lanewise.run("slct.ftz.u32.f32 %d, 1, 2, %a;", "uint32", a)
    np.testing.assert_array_equal(got, np.where(x >= 0, 1, 2))


ORDERS = ["weak", "volatile", "relaxed.cta", "relaxed.gpu", "relaxed.sys", "mmio.relaxed.sys"]


@pytest.mark.parametrize("order", [*ORDERS, "acquire.cta/release.cta", "acquire.gpu/release.gpu"])
@pytest.mark.parametrize("space", ["global", "shared", "shared::cta", "local", ""])
def test_orders_and_scopes_carry_values(order, space):
    if space == "local" and order != "weak":
        order = "weak"
    load, store = (order.split("/") * 2)[:2]
    names = {"global": "%x", "local": "l", "": "%y"}
    where = names.get(space, "%t")
    dot = f".{space}" if space else ""
    body = f"""mov.u32 %t, s; mov.u32 %d, %tid.x; mad.lo.u32 %t, %d, 4, %t; cvt.u64.u32 %y, %t;
cvta.shared.u64 %y, %y; ld.param.u64 %x, [p_d]; mad.wide.u32 %x, %i, 4, %x;
st.{store}{dot}.b32 [{where}], %a; ld.{load}{dot}.b32 %d, [{where}];"""
    a = lanewise.integers("uint32", 3)
    got = lanewise.run(body, "uint32", a, declarations=".shared .b32 s[64]; .local .b32 l;")
    np.testing.assert_array_equal(got, a)


@pytest.mark.parametrize(
    ("load", "store"),
    [
        *(("lu", "wb"), ("cv", "wt"), ("cs", "cs"), ("cg", "cg"), ("ca", "wb")),
        *((f"L1::evict_{p}", f"L1::evict_{p}") for p in ("normal", "unchanged", "first")),
        *((f"L2::evict_{p}", f"L2::evict_{p}") for p in ("normal", "first", "last")),
        *((f"L2::{n}B", "wb") for n in (64, 128, 256)),
    ],
)
def test_cache_hints_change_nothing(load, store):
    body = f"""ld.param.u64 %x, [p_a]; mad.wide.u32 %x, %i, 4, %x; ld.global.{load}.b32 %t, [%x];
ldu.global.b32 %d, [%x]; xor.b32 %d, %d, %t; ld.param.u64 %x, [p_d];
mad.wide.u32 %x, %i, 4, %x; st.global.{store}.b32 [%x], %t; add.u32 %d, %d, %t;"""
    a = lanewise.integers("uint32", 4)
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a), a)


def test_policies_and_wide_vectors():
    body = """createpolicy.fractional.L2::evict_last.b64 %y, 1.0; ld.param.u64 %x, [p_a];
mad.wide.u32 %x, %i, 4, %x; ld.global.L2::cache_hint.b32 %d, [%x], %y; nanosleep.u32 10; pmevent 1;
pmevent.mask 3; prefetch.global.L2 [%x]; prefetchu.L1 [%x];
applypriority.global.L2::evict_normal [%x], 128; ld.param.u64 %x, [p_d];
discard.global.L2 [%x], 128; mad.wide.u32 %x, %i, 4, %x;
st.global.L2::cache_hint.b32 [%x], %d, %y; add.u32 %d, %d, 1; exit;"""
    a = lanewise.integers("uint32", 5)
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a), a)
    out, wide = np.zeros(64, "u4"), np.arange(64, dtype="u4")
    registers = ", ".join(f"%r{i}" for i in range(8))
    ptx = HEAD + (
        ".visible .entry k(.param .u64 p, .param .u64 q) { .reg .b32 %r<9>; .reg .b64 %x<3>;"
        "ld.param.u64 %x0, [p]; ld.param.u64 %x1, [q]; mov.u32 %r8, %tid.x;"
        "mad.wide.u32 %x0, %r8, 32, %x0; mad.wide.u32 %x1, %r8, 32, %x1;"
        f"ld.global.v8.b32 {{{registers}}}, [%x0]; st.global.v8.b32 [%x1], {{{registers}}}; ret; }}"
    )
    buffers = [np.zeros(72, "u4") for _ in range(2)]
    wide_in, out = (b[-b.ctypes.data % 32 // 4 :][:64] for b in buffers)
    wide_in[:] = wide
    emulator.launch(ptx, "k", 1, 8, [wide_in, out])
    np.testing.assert_array_equal(out, wide)


ATOMIC = {
    "and.b32": np.bitwise_and,
    "or.b32": np.bitwise_or,
    "xor.b32": np.bitwise_xor,
    "exch.b32": lambda old, b: b,
    "add.u32": np.add,
    "min.u32": np.minimum,
    "max.u32": np.maximum,
    "inc.u32": lambda old, b: np.where(old >= b, 0, old + 1),
    "dec.u32": lambda old, b: np.where((old == 0) | (old > b), b, old - 1),
    "min.s32": lambda old, b: np.minimum(old.view("i4"), b.view("i4")).view("u4"),
    "max.s32": lambda old, b: np.maximum(old.view("i4"), b.view("i4")).view("u4"),
}
FORMS = ["", ".relaxed.gpu", ".relaxed.cta", ".acquire.sys", ".release.cluster", ".acq_rel.cta"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("op", ATOMIC)
def test_atomics_return_the_old_value(op, space, form):
    a, b = lanewise.integers("uint32", 1), lanewise.integers("uint32", 2)
    b[::3] = a[::3]
    where = "%x" if space == "global" else "%t"
    body = f"""ld.param.u64 %x, [p_d]; mad.wide.u32 %x, %i, 4, %x; mov.u32 %d, %tid.x;
mov.u32 %t, s; mad.lo.u32 %t, %d, 4, %t; st.{space}.b32 [{where}], %a;
atom{form}.{space}.{op} %d, [{where}], %b;"""
    shared = ".shared .b32 s[64];"
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b, declarations=shared), a)
    body = f"{body} ld.{space}.b32 %d, [{where}];"
    expected = ATOMIC[op](a, b)
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b, declarations=shared), expected)
    if op.startswith("exch"):
        return
    body = body.replace("atom", "red").replace(f"{op} %d,", f"{op}")
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b, declarations=shared), expected)


FENCES = ["membar.gl", "membar.cta", "membar.sys", "fence.sc.gpu", "fence.acq_rel.sys"]
BLOCK_FENCES = ["membar.cta", "fence.sc.cta", "fence.acq_rel.cluster", "fence.acq_rel.cta"]


@pytest.mark.parametrize(
    "fence", [*FENCES, *BLOCK_FENCES, "fence.acquire.gpu", "fence.release.gpu"]
)
@pytest.mark.parametrize("blocks", [1, 2])
def test_fences_order_within_their_scope(fence, blocks):
    """Thread 0 writes x and a flag; thread 32, or block 1, sees the flag and reads x."""
    ptx = HEAD + (
        ".visible .entry k(.param .u64 p) { .reg .b32 %r<8>; .reg .b64 %x; .reg .pred %p, %q;"
        "ld.param.u64 %x, [p]; mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x;"
        "mad.lo.u32 %r0, %r1, 32, %r0; setp.eq.u32 %p, %r0, 0; setp.eq.u32 %q, %r0, 32;"
        f"@%p st.global.u32 [%x], 7; {fence}; @%p st.relaxed.sys.global.u32 [%x+4], 1;"
        "@!%q bra $end; $spin: ld.relaxed.sys.global.u32 %r2, [%x+4]; setp.eq.u32 %p, %r2, 0;"
        f"@%p bra $spin; {fence}; ld.global.u32 %r3, [%x]; st.global.u32 [%x+8], %r3; $end: ret; }}"
    )
    out = np.zeros(3, "u4")

    def run():
        emulator.launch(ptx, "k", blocks, 64 // blocks, [out], max_warp_instructions=100_000)

    if blocks == 2 and fence in BLOCK_FENCES:
        with pytest.raises(emulator.EmulatorError) as failure:
            run()
        assert failure.value.kind == "race"
    else:
        run()
        assert out[2] == 7


@pytest.mark.parametrize(
    "instruction",
    [
        *("add.approx.f32 %d, %a, %a;", "mul.full.f32 %d, %a, %a;", "add.rna.f32 %d, %a, %a;"),
        *(
            "div.rn.sat.f32 %d, %a, %a;",
            "sqrt.rn.sat.f32 %d, %a;",
            "fma.rn.relu.f32 %d, %a, %a, %a;",
        ),
        *("popc.shiftamt.b32 %d, %a;", "dp4a.lo.u32.u32 %d, %a, %a, %a;"),
    ],
)
def test_modifiers_of_other_opcodes_are_refused(instruction):
    with pytest.raises(emulator.EmulatorError) as failure:
        lanewise.run(instruction, "uint32", np.zeros(64, "u4"))
    assert failure.value.kind == "unsupported"


def test_brkpt_stops():
    with pytest.raises(emulator.EmulatorError) as failure:
        lanewise.run("brkpt;", "uint32", np.zeros(64, "u4"))
    assert failure.value.kind == "trap"


def test_block_scope_atomics_race_between_blocks():
    ptx = HEAD + (
        ".visible .entry k(.param .u64 p) { .reg .b32 %r; .reg .b64 %x; ld.param.u64 %x, [p];"
        "atom.relaxed.cta.global.add.u32 %r, [%x], 1; ret; }"
    )
    emulator.launch(ptx, "k", 1, 64, [np.zeros(1, "u4")])
    with pytest.raises(emulator.EmulatorError) as failure:
        emulator.launch(ptx, "k", 2, 32, [np.zeros(1, "u4")])
    assert failure.value.kind == "race"


def test_carry_chains_of_three_words():
    a, b = lanewise.integers("uint32", 7), lanewise.integers("uint32", 8)
    two = [int(x) << 32 | int(x) for x in a], [int(x) << 32 | int(x) for x in b]
    for op, sign in (("add", 1), ("sub", -1)):
        body = f"""{op}.cc.u32 %t, %a, %b; {op}c.cc.u32 %t, %a, %b; {op}c.u32 %d, 0, 0;"""
        expected = [((x + sign * y) >> 64) & 0xFFFFFFFF for x, y in zip(*two, strict=True)]
        np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b), expected)
    body = "mad.lo.cc.u32 %t, %a, %b, %a; madc.lo.cc.u32 %t, %a, %b, %b; madc.hi.u32 %d, %a, %b, 0;"
    expected = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        low = (x * y & 0xFFFFFFFF) + x >> 32
        carry = (x * y & 0xFFFFFFFF) + y + low >> 32
        expected.append((x * y >> 32) + carry & 0xFFFFFFFF)
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a, b), expected)


def test_nth_set_bit():
    a = lanewise.integers("uint32", 9)
    base = np.random.default_rng(10).integers(0, 32, len(a)).astype("u4")
    n = np.random.default_rng(11).integers(-6, 7, len(a)).astype("i4")
    n[0] = np.iinfo("i4").min
    expected = []
    for mask, start, count in zip(a.tolist(), base.tolist(), n.tolist(), strict=True):
        path = range(start, 32) if count > 0 else range(start, -1, -1)
        hits = [i for i in path if mask >> i & 1]
        if count == 0:
            expected.append(start if mask >> start & 1 else 0xFFFFFFFF)
        else:
            expected.append(hits[abs(count) - 1] if abs(count) <= len(hits) else 0xFFFFFFFF)
    np.testing.assert_array_equal(
        lanewise.run("fns.b32 %d, %a, %b, %c;", "u4", a, base, n), expected
    )


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_mad_is_fma(mode):
    operands = [lanewise.floats("float32", seed) for seed in (12, 13, 14)]
    for form in (mode, f"{mode}.sat"):
        mad, fma = (
            lanewise.run(f"{op}.{form}.f32 %d, %a, %b, %c;", "uint32", *operands)
            for op in ("mad", "fma")
        )
        np.testing.assert_array_equal(mad, fma)


@pytest.mark.parametrize("op", ["min", "max"])
def test_xorsign(op):
    a, b = (lanewise.floats("float32", seed) for seed in (15, 16))
    got = lanewise.run(f"{op}.xorsign.abs.f32 %d, %a, %b;", "float32", a, b)
    sizes = {"min": np.fmin, "max": np.fmax}[op](np.abs(a), np.abs(b))
    expected = np.copysign(sizes, np.where(np.signbit(a) ^ np.signbit(b), -1, 1))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("spelling", ["bar", "barrier", "barrier.cta", "bar.cta"])
def test_named_barriers(spelling):
    """Warp 1 hands its values to warp 0, which waits; then a vote of all."""
    aligned = ".aligned" if spelling.startswith("barrier") else ""
    body = f"""mov.u32 %t, %tid.x; setp.lt.u32 %p, %t, 32; mov.u32 %t, s; @%p bra $wait;
mov.u32 %d, %tid.x; mad.lo.u32 %t, %d, 4, %t; st.shared.b32 [%t], %a; {spelling}.arrive 3, 64;
bra $vote; $wait: {spelling}.sync{aligned} 3, 64; mov.u32 %d, %tid.x; mad.lo.u32 %t, %d, 4, %t;
ld.shared.b32 %d, [%t+128]; $vote: setp.ne.u32 %q, %a, 7;
{spelling}.red.and.pred %p, 1, %q; {spelling}.red.or.pred %q, 1, !%q; @%p add.u32 %d, %d, 1;
{spelling}.red.popc.u32 %t, 1, %q; add.u32 %d, %d, %t;"""
    a = lanewise.integers("uint32", 17).reshape(-1, 64)
    a[a == 7] = 8
    a[::2, 5] = 7
    got = lanewise.run(body, "uint32", a.ravel(), declarations=".shared .b32 s[64];")
    got = got.reshape(a.shape)
    own = np.arange(len(a)) % 2 == 0
    votes = np.where(own, 64, 1).astype("u4")[:, None]
    np.testing.assert_array_equal(got[:, :32], a[:, 32:] + votes)


def test_parameter_spaces_by_their_long_names():
    ptx = HEAD + (
        ".func (.param .b32 r) twice(.param .b32 x) { .reg .b32 %a; ld.param::func.b32 %a, [x];"
        "shl.b32 %a, %a, 1; st.param::func.b32 [r], %a; ret.uni; }"
        ".visible .entry k(.param .u64 p) { .reg .b32 %a; .reg .b64 %x; mov.u32 %a, %tid.x;"
        "{ .param .b32 in; .param .b32 out; st.param::func.b32 [in], %a;"
        "call.uni (out), twice, (in); ld.param::func.b32 %a, [out]; }"
        "ld.param::entry.u64 %x, [p]; cvta.param::entry.u64 %x, %x; st.global.b32 [%x], %a; ret; }"
    )
    out = np.zeros(1, "u4")
    with pytest.raises(emulator.EmulatorError, match="out of bounds"):
        emulator.launch(ptx, "k", 1, 1, [out])  # a parameter space is not global memory
    ptx = ptx.replace("cvta.param::entry.u64 %x, %x;", "")
    emulator.launch(ptx, "k", 1, 1, [out])
    assert out[0] == 0
