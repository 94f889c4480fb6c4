"""Divergence, loops, branch tables, calls, exits, and kernels that must be stopped."""

import lanewise
import numpy as np
import pytest

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_80\n.address_size 64\n"


def test_collatz_diverges_and_reconverges():
    a = np.random.default_rng(1).integers(1, 500, 512).astype(np.uint32)
    body = """mov.u32 %d, 0;
$loop: setp.eq.u32 %p, %a, 1; @%p bra $done;
add.u32 %d, %d, 1; and.b32 %t, %a, 1; setp.eq.u32 %q, %t, 0; @%q bra $even;
mad.lo.u32 %a, %a, 3, 1; bra.uni $loop;
$even: shr.u32 %a, %a, 1; bra $loop;
$done: activemask.b32 %t; setp.ne.u32 %p, %t, -1; @%p mov.u32 %d, 0;"""

    def steps(n):
        return 0 if n == 1 else 1 + steps(n // 2 if n % 2 == 0 else 3 * n + 1)

    got = lanewise.run(body, "uint32", a)
    np.testing.assert_array_equal(got, [steps(int(n)) for n in a])


def test_branch_table():
    a = np.random.default_rng(2).integers(0, 3, 512).astype(np.uint32)
    body = """$table: .branchtargets $zero, $one, $two;
brx.idx %a, $table;
$zero: mov.u32 %d, 10; bra $end; $one: mov.u32 %d, 20; bra $end; $two: mov.u32 %d, 30; $end:"""
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a), a * 10 + 10)


def test_labels_are_local_to_their_block():
    a = lanewise.integers("uint32", 3)
    body = """mov.u32 %d, 0;
{ .reg .pred %p; setp.gt.u32 %p, %a, 7; @%p bra DONE; add.u32 %d, %d, 1; DONE: }
{ .reg .pred %p; setp.gt.u32 %p, %a, 99; @%p bra DONE; add.u32 %d, %d, 2; DONE: }"""
    np.testing.assert_array_equal(lanewise.run(body, "uint32", a), (a <= 7) * 1 + (a <= 99) * 2)


CALLS = (
    HEAD
    + """
.func (.param .b32 r) twice(.param .b32 x) {
.reg .b32 %a; ld.param.b32 %a, [x]; add.u32 %a, %a, %a; st.param.b32 [r], %a; ret; }
.func (.param .align 8 .b8 r[8]) both(.param .b32 x, .param .b32 y) {
.reg .b32 %a, %b; .reg .pred %p; ld.param.b32 %a, [x]; ld.param.b32 %b, [y];
{ .param .b32 in; .param .b32 out; st.param.b32 [in], %a; call.uni (out), twice, (in);
ld.param.b32 %a, [out]; }
setp.gt.u32 %p, %b, 15; @%p bra $far;
st.param.b32 [r], %a; st.param.b32 [r+4], %b; ret;
$far: add.u32 %b, %b, 1000; st.param.v2.b32 [r], {%a, %b}; ret; }
.visible .entry k(.param .u64 p) {
.reg .b32 %r<8>; .reg .b64 %x; .reg .pred %p; mov.u32 %r0, %tid.x; ld.param.u64 %x, [p];
mad.wide.u32 %x, %r0, 4, %x; and.b32 %r1, %r0, 1; setp.eq.u32 %p, %r1, 0; mov.u32 %r4, 7;
@%p bra $skip;
{ .param .b32 a; .param .b32 b; .param .align 8 .b8 c[8]; st.param.b32 [a], %r0;
st.param.b32 [b], %r0; call (c), both, (a, b); ld.param.v2.b32 {%r3, %r4}, [c]; }
add.u32 %r4, %r4, %r3;
$skip: st.global.u32 [%x], %r4; ret; }"""
)


def test_calls_nest_and_diverge():
    out = np.zeros(32, np.uint32)
    emulator.launch(CALLS, "k", 1, 32, [out])
    t = np.arange(32)
    np.testing.assert_array_equal(out, np.where(t % 2, 3 * t + 1000 * (t > 15), 7))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("$l: bra $l;", "budget"),
        ("trap;", "trap"),
        (
            "$l: ld.volatile.global.u32 %t, [%x]; setp.eq.u32 %p, %t, 77; @!%p bra $l;",
            "budget",
        ),
    ],
)
def test_kernels_that_never_end_are_stopped(body, kind):
    a = np.zeros(64, np.uint32)
    ptx = lanewise.program(body, [a.dtype], a.dtype)
    with pytest.raises(emulator.EmulatorError) as failure:
        emulator.launch(ptx, "k", 1, 64, [a, a.copy()], max_warp_instructions=100_000)
    assert failure.value.kind == kind


def test_polling_for_what_never_comes_is_a_deadlock():
    a = np.zeros(64, np.uint32)
    body = "$l: ld.volatile.global.u32 %t, [%x]; setp.eq.u32 %p, %t, 77; @!%p bra $l;"
    with pytest.raises(emulator.EmulatorError) as failure:
        emulator.launch(lanewise.program(body, [a.dtype], a.dtype), "k", 1, 64, [a, a.copy()])
    assert failure.value.kind == "deadlock"


def test_spin_lock_within_a_warp_makes_progress():
    ptx = (
        HEAD
        + """.visible .entry k(.param .u64 lock, .param .u64 sum) {
.reg .b32 %r<4>; .reg .b64 %x, %y; .reg .pred %p; ld.param.u64 %x, [lock]; ld.param.u64 %y, [sum];
$try: atom.acquire.gpu.global.cas.b32 %r0, [%x], 0, 1; setp.ne.u32 %p, %r0, 0; @%p bra $try;
ld.global.u32 %r1, [%y]; add.u32 %r1, %r1, 1; st.global.u32 [%y], %r1;
atom.release.gpu.global.exch.b32 %r2, [%x], 0; ret; }"""
    )
    lock, total = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    emulator.launch(ptx, "k", 3, 64, [lock, total])
    assert total[0] == 3 * 64


def test_results_do_not_depend_on_seed_or_threads():
    ptx = (
        HEAD
        + """.visible .entry k(.param .u64 p) {
.shared .align 4 .b8 s[512]; .reg .b32 %r<8>; .reg .b64 %x;
mov.u32 %r0, %tid.x; mov.u32 %r1, s; mad.lo.u32 %r2, %r0, 4, %r1; st.shared.u32 [%r2], %r0;
bar.sync 0; xor.b32 %r3, %r0, 127; mad.lo.u32 %r2, %r3, 4, %r1; ld.shared.u32 %r4, [%r2];
mov.u32 %r5, %ctaid.x; mad.lo.u32 %r6, %r5, 128, %r0; ld.param.u64 %x, [p];
mad.wide.u32 %x, %r6, 4, %x; add.u32 %r4, %r4, %r5; st.global.u32 [%x], %r4; ret; }"""
    )
    expected = np.arange(16)[:, None] + (np.arange(128) ^ 127)
    for seed in range(4):
        for threads in (1, 2):
            out = np.zeros((16, 128), np.uint32)
            emulator.launch(ptx, "k", 16, 128, [out], seed=seed, threads=threads)
            np.testing.assert_array_equal(out, expected)
