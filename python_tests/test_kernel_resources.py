"""docs/resources.md is of these sources, and the tool that writes it sees what it has to see."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import cuda_objects  # noqa: E402
import kernel_resources  # noqa: E402
import main_loops  # noqa: E402

# An array that is indexed at run time lies in a stack frame.
STACK = """
__global__ void __launch_bounds__(96) stack(float* p, int i) {
  __shared__ float shared[32];
  float local[64];
  for (int k = 0; k < 64; ++k) local[k] = p[k];
  for (int k = 0; k < 64; ++k) local[k * i % 64] += p[k];
  shared[threadIdx.x % 32] = local[i];
  __syncthreads();
  p[threadIdx.x] = shared[31 - threadIdx.x % 32];
}
"""
# Two multiplications a turn. One side of its branch calls a special function, the shorter one.
LOOP = """
\t.section\t.text.kernel,"ax",@progbits
.text.kernel:
        /*0000*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
.L_x_0:
        /*0010*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
        /*0020*/               @P0 BRA `(.L_x_1) ;
        /*0030*/                   MUFU.EX2 R1, R1 ;
        /*0040*/                   BRA `(.L_x_2) ;
.L_x_1:
        /*0050*/                   FSETP.GEU.AND P1, PT, R1, RZ, PT ;
        /*0060*/                   FSEL R1, R1, RZ, P1 ;
        /*0070*/                   FSEL R1, R1, RZ, P1 ;
.L_x_2:
        /*0080*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
        /*0090*/              @!P2 BRA `(.L_x_0) ;
        /*00a0*/                   EXIT ;
"""


def test_the_document_is_of_these_sources() -> None:
    recorded = re.search(r"fingerprint `(\w+)`", kernel_resources.DOC.read_text())
    assert recorded is not None
    assert recorded[1] == kernel_resources.fingerprint(), "csrc/cuda changed: run `make arches`"


def test_the_document_has_a_row_for_each_tile_and_keeps_the_bound() -> None:
    rows = re.findall(r"^\| (\w+ \d+x\d+) \|(.*)\|$", kernel_resources.DOC.read_text(), re.M)
    ratios = {tile: float(cells.split("|")[2]) for tile, cells in rows}
    tiles = ("128x128", "128x64", "64x64")
    assert set(ratios) == {
        f"{dtype} {tile}" for dtype in ("fp16", "bf16", "tf32") for tile in tiles
    }
    assert max(ratios.values()) <= kernel_resources.MAX_RATIO


@pytest.mark.skipif(cuda_objects.toolchain.find_cuda()[0] is None, reason="no nvcc here")
def test_a_stack_frame_is_seen_and_our_kernels_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_objects, "OUT", tmp_path)
    bad, good = tmp_path / "stack.cu", ROOT / "csrc/cuda/pack_filter.cu"
    bad.write_text(STACK)
    cuda_objects.compile_all([bad, good], ("80",), 2)
    (stack,) = cuda_objects.read_kernels("80", bad)
    assert stack.stack == 256
    assert (stack.max_threads, stack.static_shared, stack.spilled) == (96, 128, 0)
    assert kernel_resources.problems("stack", stack) == [
        "stack: stack frame of 256 bytes, 0 bytes spilled"
    ]
    kernels = cuda_objects.read_kernels("80", good)
    assert len(kernels) == 2
    assert [kernel_resources.problems("", kernel) for kernel in kernels] == [[], []]
    assert all(kernel.registers > 0 and kernel.max_threads == 256 for kernel in kernels)


def test_blocks_are_limited_by_registers_by_shared_memory_and_by_threads() -> None:
    def blocks(arch: str, registers: int, shared: int, threads: int) -> int:
        kernel = cuda_objects.Kernel("", registers, 0, 0, 0, threads)
        return kernel_resources.blocks_per_multiprocessor(arch, kernel, shared)

    # By the CUDA occupancy calculator.
    assert blocks("80", 255, 0, 128) == 2
    assert blocks("80", 32, 72 * 1024, 128) == 2
    assert blocks("90", 32, 72 * 1024, 128) == 3
    assert blocks("120", 32, 72 * 1024, 128) == 1
    assert blocks("80", 32, 0, 256) == 8
    assert blocks("120", 32, 0, 256) == 6
    assert blocks("90", 16, 0, 32) == 32


def test_the_shortest_turn_without_special_functions_is_counted() -> None:
    (code,) = main_loops.parse(LOOP).values()
    opcodes = [i.opcode for i in main_loops.shortest_turn(code)]
    assert opcodes == ["HMMA", "BRA", "FSETP", "FSEL", "FSEL", "HMMA", "BRA"]
    assert main_loops.overhead(code) == 2.5
