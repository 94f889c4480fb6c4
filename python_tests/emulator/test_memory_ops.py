"""Loads, stores, spaces, cvta, cp.async, atomics; expected values by numpy."""

import lanewise
import numpy as np
import pytest

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_90\n.address_size 64\n"


def kernel(body, params="", module=""):
    extra = "".join(f", .param .u64 p{i}" for i in range(1, params + 1)) if params else ""
    loads = "".join(f"ld.param.u64 %x{i}, [p{i}];\n" for i in range((params or 0) + 1))
    return (
        f"{HEAD}{module}\n.visible .entry k(.param .u64 p0{extra}) {{\n"
        ".reg .b32 %r<32>; .reg .b64 %x<16>; .reg .f32 %f<16>; .reg .b16 %h<16>;"
        f".reg .pred %p<4>; .reg .f64 %g<4>;\nmov.u32 %r0, %tid.x;\n{loads}{body}\nret;\n}}"
    )


@pytest.mark.parametrize("type_", ["u8", "s8", "u16", "s16", "u32", "s32", "b64"])
def test_load_extends(type_):
    dtype = {"u": "uint", "s": "int", "b": "uint"}[type_[0]] + type_[1:]
    wide = "int64" if type_[0] == "s" else "uint64"
    a = lanewise.integers(dtype, 1)
    body = f"ld.global.{type_} %x3, [%x0]; st.global.b64 [%x1], %x3;"
    advance = f"mad.wide.u32 %x0, %r0, {a.itemsize}, %x0; mad.wide.u32 %x1, %r0, 8, %x1;"
    out = np.zeros(len(a), wide)
    emulator.launch(kernel(advance + body, 1), "k", 1, len(a), [a, out])
    np.testing.assert_array_equal(out, a.astype(wide))


@pytest.mark.parametrize(
    "access",
    [
        "",
        ".nc",
        ".ca",
        ".cg",
        ".volatile",
        ".relaxed.gpu",
        ".L1::evict_last.L2::128B",
        ".L1::no_allocate",
    ],
)
@pytest.mark.parametrize("vec", [1, 2, 4])
def test_vector_and_cached_access(vec, access):
    a = lanewise.integers("uint32", 2, 64 * vec)
    names = ", ".join(f"%r{i + 1}" for i in range(vec))
    group, v = (names, "") if vec == 1 else (f"{{{names}}}", f".v{vec}")
    order = access if access in (".volatile", ".relaxed.gpu") else ""
    hint = access if not order else ""
    body = (
        f"mad.wide.u32 %x0, %r0, {4 * vec}, %x0; mad.wide.u32 %x1, %r0, {4 * vec}, %x1;"
        f"ld{order}.global{hint}{v}.u32 {group}, [%x0]; st{order}.global{v}.b32 [%x1], {group};"
    )
    out = np.zeros_like(a)
    emulator.launch(kernel(body, 1), "k", 1, 64, [a, out])
    np.testing.assert_array_equal(out, a)


def test_generic_addresses_of_every_space():
    body = """
.local .align 8 .b8 spill[16]; .shared .align 16 .b8 tile[512];
mov.u64 %x2, spill; cvta.local.u64 %x2, %x2; st.u32 [%x2+4], %r0;
mov.u64 %x3, tile; cvta.shared.u64 %x4, %x3; mad.wide.u32 %x4, %r0, 4, %x4;
ld.u32 %r1, [%x2+4]; add.u32 %r1, %r1, 5; st.u32 [%x4], %r1;
cvta.to.shared.u64 %x5, %x4; ld.shared.u32 %r2, [%x5];
isspacep.shared %p0, %x4; isspacep.local %p1, %x2; isspacep.global %p2, %x0;
and.pred %p0, %p0, %p1; and.pred %p0, %p0, %p2;
@!%p0 mov.u32 %r2, 0;
mad.wide.u32 %x0, %r0, 4, %x0; st.u32 [%x0], %r2;"""
    out = np.zeros(64, np.uint32)
    emulator.launch(kernel(body), "k", 1, 64, [out])
    np.testing.assert_array_equal(out, np.arange(64) + 5)


def test_module_variables_and_constants():
    module = """.const .align 4 .u32 table[4] = {10, 20, 30, 40};
.global .align 8 .b8 text[6] = {104, 105};
.global .align 8 .u64 pointer[2] = {generic(text)+1, 7};"""
    body = """
and.b32 %r1, %r0, 3; mul.wide.u32 %x1, %r1, 4; mov.u64 %x2, table; add.u64 %x1, %x1, %x2;
ld.const.u32 %r2, [%x1]; ld.global.u64 %x3, [pointer]; ld.global.u8 %r3, [%x3];
ld.const.u32 %r4, [table+4]; add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r4;
mad.wide.u32 %x0, %r0, 4, %x0; st.global.u32 [%x0], %r2;"""
    out = np.zeros(32, np.uint32)
    emulator.launch(kernel(body, module=module), "k", 1, 32, [out])
    np.testing.assert_array_equal(out, np.resize([10, 20, 30, 40], 32) + 105 + 20)


def test_struct_parameter_read_by_address():
    ptx = (
        HEAD
        + """.visible .entry k(.param .align 8 .b8 s[24], .param .f32 f) {
.reg .b64 %x<4>; .reg .b32 %r<4>; .reg .f32 %f0;
mov.b64 %x0, s; ld.param.u64 %x1, [s+16]; ld.param.u32 %r1, [%x0+8]; ld.param.f32 %f0, [f];
st.global.u32 [%x1], %r1; st.global.f32 [%x1+4], %f0; ret; }"""
    )
    out = np.zeros(2, np.uint32)
    blob = np.array([1, 77, out.ctypes.data], np.uint64).tobytes()
    with pytest.raises(emulator.EmulatorError, match="out of bounds"):
        emulator.launch(ptx, "k", 1, 1, [blob, np.float32(2)])
    tail = ptx.replace("f) {", "f, .param .u64 alive) {")
    emulator.launch(tail, "k", 1, 1, [blob, np.float32(2), out])
    assert out.tolist() == [77, 0x40000000]


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("fill", [None, 0, 1, 3, 4])
def test_async_copy_with_zero_fill(size, fill):
    source = lanewise.integers("uint8", 3, 32 * size)
    extra = "" if fill is None else f", {fill}"
    words = size // 4
    names = ", ".join(f"%r{i + 4}" for i in range(words))
    vec, group = ("", names) if words == 1 else (f".v{words}", f"{{{names}}}")
    body = f"""
.shared .align 16 .b8 tile[{32 * size}];
mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, {size}, %r1; mad.wide.u32 %x2, %r0, {size}, %x0;
cp.async.ca.shared.global [%r2], [%x2], {size}{extra};
cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
xor.b32 %r3, %r0, 1; mad.lo.u32 %r2, %r3, {size}, %r1;
ld.shared{vec}.u32 {group}, [%r2];
mad.wide.u32 %x1, %r0, {size}, %x1; st.global{vec}.u32 [%x1], {group};"""
    out = np.zeros_like(source)
    emulator.launch(kernel(body, 1), "k", 1, 32, [source, out])
    expected = source.reshape(32, size).copy()
    if fill is not None:
        expected[:, fill:] = 0
    np.testing.assert_array_equal(out.reshape(32, size), expected[np.arange(32) ^ 1])


ATOMIC = {
    "add.u32": ("uint32", np.add.reduce),
    "add.u64": ("uint64", np.add.reduce),
    "min.s32": ("int32", np.min),
    "max.s32": ("int32", np.max),
    "min.u32": ("uint32", np.min),
    "max.u64": ("uint64", np.max),
    "min.s64": ("int64", np.min),
    "and.b32": ("uint32", np.bitwise_and.reduce),
    "or.b32": ("uint32", np.bitwise_or.reduce),
    "xor.b64": ("uint64", np.bitwise_xor.reduce),
    "add.f32": ("float32", np.sum),
    "add.f64": ("float64", np.sum),
    "add.noftz.f16": ("float16", np.sum),
}


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("op", ATOMIC)
def test_atomic_reductions(op, space):
    dtype, model = ATOMIC[op]
    float_ = dtype.startswith("float")
    a = (
        np.random.default_rng(4).integers(0, 8, 64).astype(dtype)
        if float_
        else (lanewise.integers(dtype, 4, 64))
    )
    size, first = a.itemsize, a[:1].copy()
    value = {2: "%h1", 4: "%r4", 8: "%x6"}[size]
    load = {2: "b16", 4: "b32", 8: "b64"}[size]
    where = "%x1" if space == "global" else "%x5"
    setup = f"mad.wide.u32 %x2, %r0, {size}, %x0; ld.global.{load} {value}, [%x2];"
    if space == "shared":
        setup += f"""
.shared .align 8 .b8 cell[8]; mov.u64 %x5, cell; setp.ne.u32 %p0, %r0, 0;
@%p0 bra $L1; ld.global.{load} {value.replace("1", "2").replace("4", "5").replace("6", "7")}, [%x1];
st.shared.{load} [%x5], {value.replace("1", "2").replace("4", "5").replace("6", "7")};
$L1: bar.sync 0;"""
    body = setup + f"red.{space}.{op} [{where}], {value};"
    if space == "shared":
        body += f"bar.sync 0; @!%p0 ld.shared.{load} {value}, [%x5];"
        body += f"@!%p0 st.global.{load} [%x1], {value};"
    out = first.copy()
    emulator.launch(kernel(body, 1), "k", 1, 64, [a, out])
    with np.errstate(over="ignore"):
        expected = model(np.concatenate([first, a]))
    assert out[0] == np.array(expected).astype(dtype)


@pytest.mark.parametrize(
    ("op", "model"),
    [
        ("inc", lambda r, s: 0 if r >= s else r + 1),
        ("dec", lambda r, s: s if r == 0 or r > s else r - 1),
    ],
)
def test_atomic_inc_dec_return_the_old_value(op, model):
    body = f"""atom.global.{op}.u32 %r1, [%x0], 9;
mad.wide.u32 %x1, %r0, 4, %x1; st.global.u32 [%x1], %r1;"""
    cell, old = np.array([4], np.uint32), np.zeros(64, np.uint32)
    emulator.launch(kernel(body, 1), "k", 1, 64, [cell, old])
    sequence = [4]
    for _ in range(64):
        sequence.append(model(sequence[-1], 9))
    assert sorted(old.tolist()) == sorted(sequence[:-1])
    assert cell[0] == sequence[-1]


def test_atomic_exchange_and_compare_swap():
    body = """
atom.global.exch.b32 %r1, [%x0], %r0; mad.wide.u32 %x2, %r0, 4, %x1; st.global.u32 [%x2], %r1;
add.u32 %r2, %r0, 1; atom.global.cas.b32 %r3, [%x0+4], %r0, %r2;"""
    cells, old = np.array([999, 0], np.uint32), np.zeros(32, np.uint32)
    emulator.launch(kernel(body, 1), "k", 1, 32, [cells, old])
    assert sorted([*old.tolist(), int(cells[0])]) == [*range(32), 999]
    assert cells[1] == 32  # lanes swap in ascending order


def test_vector_and_packed_reductions():
    out = np.zeros(4, np.float32)
    body = "mov.f32 %f0, 0f3F800000; red.global.add.v4.f32 [%x0], {%f0, %f0, %f0, %f0};"
    emulator.launch(kernel(body), "k", 2, 64, [out])
    assert (out == 128).all()
    pair = np.zeros(2, np.float16)
    body = "mov.b32 %r1, 0x40003C00; red.global.add.noftz.f16x2 [%x0], %r1;"
    emulator.launch(kernel(body), "k", 1, 32, [pair])
    assert pair.tolist() == [32, 64]
