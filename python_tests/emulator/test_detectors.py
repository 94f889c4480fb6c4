"""Each detector: a kernel with one planted defect is reported, its repaired twin runs clean."""

import ctypes

import numpy as np
import pytest

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_80\n.address_size 64\n"


def kernel(body):
    return (
        HEAD + ".visible .entry k(.param .u64 p0, .param .u64 p1) {\n"
        ".shared .align 16 .b8 s[1024]; .reg .b32 %r<32>; .reg .b64 %x<8>; .reg .pred %p<4>;\n"
        "mov.u32 %r0, %tid.x; mov.u32 %r9, %ctaid.x; mov.u32 %r1, s;\n"
        "ld.param.u64 %x0, [p0]; ld.param.u64 %x1, [p1];\n"
        "mad.lo.u32 %r2, %r0, 4, %r1; mad.wide.u32 %x2, %r0, 4, %x0;\n"
        f"mad.wide.u32 %x3, %r0, 4, %x1;\n{body}\nret;\n}}"
    )


# Shared memory is written first, else a reader that runs before the writer finds it uninitialised.
SHARED_EXCHANGE = """st.shared.u32 [%r2], 0; bar.sync 0; st.shared.u32 [%r2], %r0; {fix}
xor.b32 %r3, %r0, {xor}; mad.lo.u32 %r4, %r3, 4, %r1; ld.shared.u32 %r5, [%r4];
st.global.u32 [%x3], %r5;"""
COPY = """mad.lo.u32 %r6, %r0, 16, %r1; mad.wide.u32 %x4, %r0, 16, %x0;
mov.u32 %r3, 0; st.shared.v4.u32 [%r6], {%r3, %r3, %r3, %r3}; bar.sync 0;
cp.async.cg.shared.global [%r6], [%x4], 16; cp.async.commit_group; {fix}
xor.b32 %r3, %r0, {xor}; mad.lo.u32 %r4, %r3, 16, %r1; ld.shared.u32 %r5, [%r4];
st.global.u32 [%x3], %r5;"""
LAST_BLOCK = """setp.ne.u32 %p0, %r0, 0; @%p0 bra $end;
mad.wide.u32 %x4, %r9, 4, %x1; add.u32 %r3, %r9, 7; st.global.u32 [%x4], %r3; {fix}
atom.global.add.u32 %r4, [%x0], 1; setp.ne.u32 %p1, %r4, 3; @%p1 bra $end; {fix}
ld.global.u32 %r5, [%x1]; ld.global.u32 %r6, [%x1+4]; ld.global.u32 %r7, [%x1+8];
add.u32 %r5, %r5, %r6; add.u32 %r5, %r5, %r7; st.global.u32 [%x1+64], %r5; $end:"""
# name: kind, body with {fix} for the repair, the repair, the defect in its place, grid, block
CASES = {
    "race between warps": (
        "race",
        SHARED_EXCHANGE.replace("{xor}", "32"),
        "bar.sync 0;",
        "",
        1,
        64,
    ),
    "race within a warp": (
        "race",
        SHARED_EXCHANGE.replace("{xor}", "1"),
        "bar.warp.sync -1;",
        "",
        1,
        32,
    ),
    "race past a named barrier of too few": (
        "race",
        SHARED_EXCHANGE.replace("{xor}", "32"),
        "bar.sync 1, 64;",
        "shr.u32 %r8, %r0, 5; add.u32 %r8, %r8, 1; bar.sync %r8, 32;",
        1,
        64,
    ),
    "write after read": (
        "race",
        """st.shared.u32 [%r2], %r0; bar.sync 0; xor.b32 %r3, %r0, 32;
mad.lo.u32 %r4, %r3, 4, %r1; ld.shared.u32 %r5, [%r4]; {fix} add.u32 %r6, %r0, 100;
st.shared.u32 [%r2], %r6; st.global.u32 [%x3], %r5;""",
        "bar.sync 0;",
        "",
        1,
        64,
    ),
    "warp sync of half a warp": (
        "race",
        SHARED_EXCHANGE.replace("{xor}", "16"),
        "bar.warp.sync -1;",
        """setp.lt.u32 %p0, %r0, 16; @%p0 bra $low; bar.warp.sync 0xffff0000; bra $join;
$low: bar.warp.sync 0xffff; $join:""",
        1,
        32,
    ),
    "race between blocks": (
        "race",
        "{fix} st.global.u32 [%x3], %r9;",
        "mad.wide.u32 %x3, %r9, 128, %x3;",
        "",
        4,
        32,
    ),
    "race between lanes of one store": (
        "race",
        "and.b32 %r3, %r0, {fix}; mad.wide.u32 %x3, %r3, 4, %x1; st.global.u32 [%x3], %r0;",
        "31",
        "15",
        1,
        32,
    ),
    "plain access beside atomics": (
        "race",
        "atom.global.add.u32 %r3, [%x1], 1; {fix} ld.global.u32 %r4, [%x1];",
        "ret;",
        "",
        1,
        64,
    ),
    "last block without fences": ("race", LAST_BLOCK, "membar.gl;", "", 4, 32),
    "uninitialised shared memory": (
        "uninitialised",
        "{fix} bar.sync 0; ld.shared.u32 %r5, [%r2+4]; st.global.u32 [%x3], %r5;",
        "st.shared.u32 [%r2], %r0; st.shared.u32 [%r1+256], 1;",
        "st.shared.u32 [%r2], %r0;",
        1,
        64,
    ),
    "own copy read before its wait": (
        "async_copy",
        COPY.replace("{xor}", "0"),
        "cp.async.wait_group 0;",
        "",
        1,
        32,
    ),
    "copy waited for one group short": (
        "async_copy",
        COPY.replace("{xor}", "0"),
        "cp.async.wait_group 0;",
        "cp.async.wait_group 1;",
        1,
        32,
    ),
    "copy read before the barrier": (
        "race",
        COPY.replace("{xor}", "32"),
        "cp.async.wait_all; bar.sync 0;",
        "cp.async.wait_all;",
        1,
        64,
    ),
    "barrier before the wait": (
        "race",
        COPY.replace("{xor}", "32"),
        "cp.async.wait_all; bar.sync 0;",
        "bar.sync 0; cp.async.wait_all;",
        1,
        64,
    ),
    "copy into a buffer still read": (
        "race",
        """st.shared.u32 [%r2], %r0; bar.sync 0; xor.b32 %r3, %r0, 32;
mad.lo.u32 %r4, %r3, 4, %r1; ld.shared.u32 %r5, [%r4]; {fix}
cp.async.ca.shared.global [%r2], [%x2], 4; cp.async.wait_all; st.global.u32 [%x3], %r5;""",
        "bar.sync 0;",
        "",
        1,
        64,
    ),
    "barrier in one arm of a branch": (
        "barrier",
        """setp.lt.u32 %p0, %r0, 16; {fix} @%p0 bra $low; bar.sync 0; bra $end;
$low: bar.sync 0; bar.sync 0; $end:""",
        "setp.lt.u32 %p0, %r0, 64; ",
        "",
        1,
        32,
    ),
    "barrier count of the wrong size": ("barrier", "bar.sync 1, {fix};", "64", "33", 1, 64),
    "barrier that others never reach": (
        "barrier",
        """setp.lt.u32 %p0, %r0, 32; @%p0 bra $end; bar.sync 1, {fix};
$end:""",
        "32",
        "64",
        1,
        64,
    ),
    "shuffle by a lane outside the mask": (
        "barrier",
        "shfl.sync.idx.b32 %r3, %r0, 0, 31, {fix};",
        "-1",
        "0xffff",
        1,
        32,
    ),
    "shuffle that lanes of the mask skip": (
        "barrier",
        """setp.lt.u32 %p0, %r0, 16; @!%p0 bra $skip;
shfl.sync.idx.b32 %r3, %r0, 0, 31, {fix}; bra $end;
$skip: shfl.sync.idx.b32 %r3, %r0, 16, 31, {fix2}; $end:""",
        "0xffff",
        "-1",
        1,
        32,
    ),
    "out of bounds": ("out_of_bounds", "st.global.u32 [%x3+{fix}], %r0;", "0", "512", 1, 128),
    "before the tensor": ("out_of_bounds", "ld.global.u32 %r3, [%x3+{fix}];", "0", "-4", 1, 128),
    "shared out of bounds": (
        "out_of_bounds",
        "st.shared.u32 [%r2+{fix}], %r0;",
        "0",
        "1024",
        1,
        64,
    ),
    "null pointer": (
        "out_of_bounds",
        "mov.u64 %x4, {fix}; add.u64 %x3, %x3, %x4; st.global.u32 [%x3], %r0;",
        "0",
        "-0x7000000000000",
        1,
        32,
    ),
    "misaligned": ("misaligned", "st.global.u32 [%x3+{fix}], %r0;", "4", "2", 1, 64),
    "misaligned vector": (
        "misaligned",
        "st.shared.v2.u32 [%r1+{fix}], {%r9, %r9};",
        "8",
        "4",
        1,
        1,
    ),
    "write to constant memory": (
        "out_of_bounds",
        "mov.u64 %x4, {fix}; st.global.u32 [%x4], %r9;",
        "spare",
        "table",
        1,
        1,
    ),
}
MODULE = ".const .align 4 .u32 table[1] = {1};\n.global .align 4 .u32 spare[1];\n"


def run(body, grid, block, seed):
    ptx = kernel(body).replace(".visible", MODULE + ".visible")
    counter = np.zeros(256, np.uint32)
    if "atom.global.add.u32 %r4, [%x0]" not in body:
        counter[:] = np.arange(256)
    out = np.zeros(128, np.uint32)
    return emulator.launch(ptx, "k", grid, block, [counter, out], seed=seed)


def fill(body, fix, other):
    return body.replace("{fix2}", other).replace("{fix}", fix)


@pytest.mark.parametrize("name", CASES)
def test_defect_is_reported_and_repair_is_clean(name):
    kind, body, repair, defect, grid, block = CASES[name]
    for seed in range(3):
        with pytest.raises(emulator.EmulatorError) as failure:
            run(fill(body, defect, "-1"), grid, block, seed)
        assert failure.value.kind == kind, failure.value
        message = str(failure.value)
        assert "kernel k" in message
        assert "block (" in message
        assert "PTX line" in message
        run(fill(body, repair, "0xffff0000"), grid, block, seed)


def test_same_value_stores_are_a_note():
    counters = run("mov.u32 %r3, 5; st.global.u32 [%x1], %r3;", 2, 64, 0)
    assert counters.same_value_stores == 127


def test_error_names_both_threads_and_lines():
    with pytest.raises(
        emulator.EmulatorError, match=r"races with a (write|read) by block"
    ) as failure:
        run(SHARED_EXCHANGE.replace("{xor}", "32").replace("{fix}", ""), 1, 64, 1)
    assert str(failure.value).count("thread (") == 2
    assert str(failure.value).count("PTX line") == 2


def test_freed_tensor_is_out_of_bounds():
    ptx = kernel("ld.global.u64 %x4, [%x0]; ld.global.u32 %r3, [%x4]; st.global.u32 [%x1], %r3;")
    target = np.full(4, 9, np.uint32)
    holder, out = np.array([target.ctypes.data], np.uint64), np.zeros(4, np.uint32)
    with pytest.raises(emulator.EmulatorError, match="out of bounds"):
        emulator.launch(ptx, "k", 1, 1, [holder, out])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "takes 2 arguments, got 0"),
        ([np.zeros(4), np.zeros(4), ctypes.c_int(1)], "takes 2 arguments, got 3"),
        ([ctypes.c_int32(1), np.zeros(4)], "8 bytes wide, got 4"),
        ([np.float64(1), np.zeros(4)], "is an integer, got a float"),
    ],
)
def test_wrong_arguments(arguments, match):
    with pytest.raises(emulator.EmulatorError, match=match) as failure:
        emulator.launch(kernel(""), "k", 1, 32, arguments)
    assert failure.value.kind == "argument"


@pytest.mark.parametrize("grid", [0, -1, (1, 0), (1, 70000), 2**31, (2**31 - 1, 60000)])
def test_impossible_grids(grid):
    with pytest.raises(emulator.EmulatorError) as failure:
        emulator.launch(kernel(""), "k", grid, 32, [None, None])
    assert failure.value.kind == "argument"


@pytest.mark.parametrize("block", [0, 1025, (32, 64), (1, 1, 65)])
def test_impossible_blocks(block):
    with pytest.raises(emulator.EmulatorError) as failure:
        emulator.launch(kernel(""), "k", 1, block, [None, None])
    assert failure.value.kind == "argument"


def test_untyped_python_numbers_are_refused():
    with pytest.raises(TypeError, match=r"args\[0\]"):
        emulator.launch(kernel(""), "k", 1, 32, [3, None])
