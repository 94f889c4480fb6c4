"""Speed of the PTX emulator: scalar thread-instructions and tensor-core multiply-adds a second.

`python -m benchmarks.emulator_speed`: detectors and counters on and off, one host thread and two.
Targets with all on and two threads: 100 million thread-instructions/s; 6 s for 10^9 multiply-adds.
"""

from __future__ import annotations

import itertools
import time

import numpy as np

from resnet_kernels import emulator

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
# Each thread walks a row of x: y = y * x[i] + i, with a bounds test, as scalar kernels do.
SCALAR = HEAD + (
    ".visible .entry scalar(.param .u64 px, .param .u64 py, .param .u32 n) {"
    ".reg .b32 %r<8>; .reg .b64 %x<4>; .reg .f32 %f<4>; .reg .pred %p<2>;"
    "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x;"
    "mad.lo.s32 %r3, %r0, %r1, %r2; ld.param.u32 %r4, [n]; ld.param.u64 %x0, [px];"
    "mul.wide.u32 %x1, %r3, 4; add.s64 %x0, %x0, %x1; mov.f32 %f0, 0f00000000; mov.u32 %r5, 0;"
    "mov.u32 %r6, %nctaid.x; mul.lo.u32 %r6, %r6, %r1; mul.wide.u32 %x2, %r6, 4;"
    "$loop: ld.global.f32 %f1, [%x0]; cvt.rn.f32.u32 %f2, %r5; fma.rn.f32 %f0, %f0, %f1, %f2;"
    "mul.f32 %f0, %f0, 0f3F000000; xor.b32 %r7, %r5, %r3; and.b32 %r7, %r7, 255;"
    "cvt.rn.f32.u32 %f3, %r7; add.f32 %f0, %f0, %f3; add.s64 %x0, %x0, %x2; add.u32 %r5, %r5, 1;"
    "setp.lt.u32 %p0, %r5, %r4; @%p0 bra $loop;"
    "ld.param.u64 %x3, [py]; add.s64 %x3, %x3, %x1; st.global.f32 [%x3], %f0; ret; }"
)
# Each of four warps multiplies tiles of shared memory: two ldmatrix and two mma a step.
ACCUMULATORS = "{{%c{0}, %c{1}, %c{2}, %c{3}}}"
TENSOR = HEAD + (
    ".visible .entry tensor(.param .u64 py, .param .u32 n) { .shared .align 16 .b8 s[4096];"
    ".reg .b32 %r<8>, %a<8>; .reg .b64 %x<4>; .reg .f32 %c<8>; .reg .pred %p;"
    "mov.u32 %r0, %tid.x; mov.u32 %r1, s; mad.lo.u32 %r2, %r0, 32, %r1; mov.u32 %r3, 0x3C003C00;"
    "st.shared.v4.b32 [%r2], {%r3, %r3, %r3, %r3}; st.shared.v4.b32 [%r2+16], {%r3, %r3, %r3, %r3};"
    "bar.sync 0; and.b32 %r4, %r0, 31; mad.lo.u32 %r2, %r4, 16, %r1; ld.param.u32 %r5, [n];"
    + "".join(f"mov.f32 %c{i}, 0f00000000;" for i in range(8))
    + "mov.u32 %r6, 0; $loop:"
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%a0, %a1, %a2, %a3}, [%r2];"
    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%a4, %a5, %a6, %a7}, [%r2+512];"
    + "".join(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        f"{ACCUMULATORS.format(*c)}, {{%a0, %a1, %a2, %a3}}, {{%a{b}, %a{b + 1}}}, "
        f"{ACCUMULATORS.format(*c)};"
        for c, b in ((range(4), 4), (range(4, 8), 6))
    )
    + "add.u32 %r6, %r6, 1; setp.lt.u32 %p, %r6, %r5; @%p bra $loop;"
    "mov.u32 %r7, %ctaid.x; mad.lo.u32 %r7, %r7, 128, %r0; ld.param.u64 %x0, [py];"
    "mad.wide.u32 %x0, %r7, 4, %x0; add.f32 %c0, %c0, %c7; st.global.f32 [%x0], %c0; ret; }"
)
BLOCKS, STEPS, MMA_STEPS = 64, 200, 250


def scalar(**options: object) -> float:
    """Million thread-instructions a second."""
    x = np.ones((STEPS, BLOCKS * 256), np.float32)
    y = np.zeros(BLOCKS * 256, np.float32)
    start = time.perf_counter()
    arguments = [x, y, np.int32(STEPS)]
    counters = emulator.launch(SCALAR, "scalar", BLOCKS, 256, arguments, **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    assert (y > 0).all()
    return counters.thread_instructions / seconds / 1e6


def tensor(**options: object) -> float:
    """Seconds for 10^9 multiply-adds."""
    y = np.zeros(BLOCKS * 128, np.float32)
    start = time.perf_counter()
    arguments = [y, np.int32(MMA_STEPS)]
    counters = emulator.launch(TENSOR, "tensor", BLOCKS, 128, arguments, **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    assert (y == 2 * 16 * MMA_STEPS).all()
    return seconds / counters.mma_multiply_adds * 1e9


def main() -> None:
    """Prints the best of three runs of each."""
    print("checks  threads  M thread-instr/s  s per 1e9 multiply-adds")
    for on, threads in itertools.product((True, False), (1, 2)):
        options = {"detect_races": on, "count_memory": on, "threads": threads}
        best = max(scalar(**options) for _ in range(3))
        least = min(tensor(**options) for _ in range(3))
        print(f"{'on' if on else 'off':6}  {threads:7}  {best:16.0f}  {least:23.2f}")


if __name__ == "__main__":
    main()
