"""Sectors, wavefronts, distinct bytes, instruction classes and coverage of known kernels."""

import numpy as np
import ptx_coverage
import pytest

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_80\n.address_size 64\n"


def run(body, threads=32, size=4096):
    ptx = (
        HEAD + ".visible .entry k(.param .u64 p) { .shared .align 16 .b8 s[4096];"
        ".reg .b32 %r<8>; .reg .b64 %x<4>; .reg .pred %p; mov.u32 %r0, %tid.x;"
        f"mov.u32 %r1, s; ld.param.u64 %x0, [p];\n{body}\nret; }}"
    )
    raw = np.zeros(size + 32, np.uint8)
    start = -raw.ctypes.data % 32  # sectors are counted from a 32-byte boundary
    return ptx, emulator.launch(ptx, "k", 1, threads, [raw[start : start + size]])


@pytest.mark.parametrize(
    ("stride", "width", "sectors", "ideal", "distinct"),
    [
        (4, 1, 4, 4, 128),
        (8, 1, 8, 4, 128),
        (32, 1, 32, 4, 128),
        (0, 1, 1, 1, 4),
        (16, 4, 16, 16, 512),
        (2, 0, 2, 2, 64),
    ],
)
def test_global_sectors(stride, width, sectors, ideal, distinct):
    load = {
        0: "ld.global.u16 %r2",
        1: "ld.global.u32 %r2",
        4: "ld.global.v4.u32 {%r2, %r3, %r4, %r5}",
    }
    _, c = run(f"mad.wide.u32 %x1, %r0, {stride}, %x0; {load[width]}, [%x1];")
    assert (c.global_load_sectors, c.global_load_sectors_ideal) == (sectors, ideal)
    assert c.distinct_bytes_read == distinct
    assert c.distinct_bytes_written == 0


@pytest.mark.parametrize(
    ("stride", "width", "wavefronts", "ideal"),
    [
        (4, 1, 1, 1),
        (8, 1, 2, 1),
        (128, 1, 32, 1),
        (0, 1, 1, 1),
        (16, 4, 4, 4),
        (8, 2, 2, 2),
        (64, 4, 16, 4),
    ],
)
def test_shared_wavefronts(stride, width, wavefronts, ideal):
    group = {1: "%r2", 2: "{%r2, %r3}", 4: "{%r2, %r3, %r4, %r5}"}[width]
    vec = "" if width == 1 else f".v{width}"
    _, c = run(
        "mov.u32 %r2, 0; mov.u32 %r3, 0; mov.u32 %r4, 0; mov.u32 %r5, 0;"
        f"mad.lo.u32 %r6, %r0, {stride}, %r1; st.shared{vec}.u32 [%r6], {group};"
    )
    assert (c.shared_store_wavefronts, c.shared_store_wavefronts_ideal) == (wavefronts, ideal)


def test_instruction_classes_count_threads_that_execute():
    _, c = run(
        "setp.lt.u32 %p, %r0, 8; @%p add.u32 %r2, %r0, 1; @!%p bra $end;add.u32 %r2, %r2, 1; $end:",
        threads=40,
    )
    assert c.warps == 2
    assert c.by_class["integer"] == 8 + 8
    assert c.by_class["predicate"] == 40


def test_coverage_lists_lines_never_executed():
    ptx, _ = run(
        "setp.gt.u32 %p, %r0, 100; @%p bra $never;\nadd.u32 %r2, %r0, 1;\nret;\n"
        "$never: add.u32 %r2, %r0, 2;"
    )
    first = ptx.splitlines().index("$never: add.u32 %r2, %r0, 2;") + 1
    assert emulator.uncovered_lines(ptx, "k") == [first, first + 1]
    executed, total = emulator.coverage()["k"]
    assert 0 < executed <= total


def test_detectors_and_counters_can_be_switched_off():
    ptx, _ = run("st.global.u32 [%x0], 1;")
    out = np.zeros(4, np.uint32)
    racy = ptx.replace("st.global.u32 [%x0], 1;", "st.global.u32 [%x0], %r0;")
    with pytest.raises(emulator.EmulatorError):
        emulator.launch(racy, "k", 1, 32, [out])
    counters = emulator.launch(racy, "k", 1, 32, [out], detect_races=False, count_memory=False)
    assert counters.global_store_sectors == 0


def test_coverage_adds_up_over_processes():
    key, idle = ("library:1", "k"), ("library:1", "idle")
    one = {key: [(5, True), (6, False), (7, False)], idle: [(9, False)]}
    two = {key: [(5, False), (6, True), (7, False)], ("2", "t"): [(1, True)]}
    table = {}
    ptx_coverage.merge(table, one)
    ptx_coverage.merge(table, two)
    assert table[key] == [(5, True), (6, True), (7, False)]
    assert ptx_coverage.report(table, "lines") == [
        "PTX coverage of the library's kernels: 2 of 4 instructions in 2 kernels, 1 never launched",
        "       0 of      1  idle",
        "          lines 9",
        "       2 of      3  k",
        "          lines 7",
        "PTX coverage of the tests' PTX: 1 of 1 instructions in 1 kernels, 0 never launched",
    ]
