"""Writes docs/resources.md: what each CUDA kernel takes of a GPU, and what its main loop costs.

`python tools/kernel_resources.py [-j JOBS]` compiles csrc/cuda for all architectures; objects stay
under build/resources. Exits with 1 if a kernel spills registers or has a stack frame, or if a main
loop is more than 1.5 times as long as Triton's.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

import cuda_objects
import main_loops
from cuda_objects import OUT, ROOT, Kernel, toolchain

ARCHS = ("80", "90", "100", "120")
LOOP_ARCHS = ("80", "90")
MAX_RATIO = 1.5
DOC = ROOT / "docs/resources.md"
TYPES = {"__half": "fp16", "__nv_bfloat16": "bf16", "Tf32": "tf32", "float": "fp32"}
TILE = re.compile(r"(?:Igemm|Wgrad)Tile<[^<>]*>")
# A multiprocessor of each architecture: threads, blocks, KiB of shared memory. CUDA programming
# guide, "Technical specifications per compute capability".
MULTIPROCESSORS = {
    "80": (2048, 32, 164),
    "90": (2048, 32, 228),
    "100": (2048, 32, 228),
    "120": (1536, 24, 100),
}
REGISTERS = 64 * 1024
# Bytes of the window of ResNet's stem, 7 x 7 with stride 2 on three channels of 16 bits: lines of
# 408 elements for seven rows of the filter and two output rows (window_of() in igemm_fwd.cu).
STEM_WINDOW = 2 * 7 * 408 * 2


def fingerprint() -> str:
    """Of everything that the kernels are compiled from."""
    return toolchain.fingerprint(ROOT / "csrc/common", ROOT / "csrc/cuda")


def igemm_name(name: str) -> str | None:
    """What an instantiation of the implicit GEMM computes; None of any other kernel."""
    tile = re.search(r"(?:IgemmTile<|WgradTile<\w+, )(\d+), (\d+)", name)
    math = re.search(r"(?:TensorCores|FloatUnits)<(\w+)|igemm_window<\w+<[^>]*>, \w+, (\w+)", name)
    if tile is None or math is None:
        return None
    wgrad = name.startswith("igemm_wgrad")
    direction = "wgrad" if wgrad else "dgrad" if "IgemmGradientTile" in name else "fwd"
    flags = re.search(r"(?:IgemmInputCopy|WgradColumns)<[^>]*>, \w+, (?:(\w+), )?(\w+)>", name)
    dtype = TYPES.get(math[1] or math[2], "fp32")
    if math[2]:
        return f"igemm {direction} {dtype} {tile[1]}x{tile[2]} window"
    if "IgemmAppliedCopy" in name:
        return f"igemm {direction} {dtype} {tile[1]}x{tile[2]} pointwise +apply"
    if flags is None:
        # Rows of dy element by element too.
        both = re.search(r"WgradRows<[^>]*>, \w+, false>", name)
        addressing = "gather both" if both else "gather"
    else:
        addressing = "pointwise" if flags[1] == "true" else "convolution"
        addressing += " +prologue" if flags[2] == "true" else ""
    return f"igemm {direction} {dtype} {tile[1]}x{tile[2]} {addressing}"


def plain_name(demangled: str) -> str:
    """The kernel and its template arguments, without namespaces and parameters."""
    name = demangled.removeprefix("void ").replace("(anonymous namespace)::", "")
    name = name.replace("rnk::cuda::", "").replace("> >", ">>").replace("> >", ">>")
    return name.split("(")[0] if "<" not in name else name[: name.rindex(">(") + 1]


def short_name(name: str) -> str:
    """For the table."""
    for cuda, ours in TYPES.items():
        name = re.sub(rf"\b{cuda}\b", ours, name)
    return name


def tiles_shared(names: list[str]) -> dict[str, int]:
    """Bytes of dynamic shared memory of each tile, as the headers have it."""
    for path in (ROOT / "csrc/cuda").iterdir():
        known = path.name in ("igemm_kernel.cuh", "igemm_wgrad_kernel.cuh", "igemm_window.cuh")
        if not known and "extern __shared__" in path.read_text():
            raise SystemExit(f"kernel_resources: dynamic shared memory of {path.name} is unknown")
    tiles = sorted({tile for name in names for tile in TILE.findall(name)})
    prints = "".join(f'  std::printf("%d\\n", {tile}::kSharedBytes);\n' for tile in tiles)
    program = OUT / "tiles.cu"
    program.write_text(
        "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n\n#include <cstdio>\n\n"
        f'#include "{ROOT}/csrc/cuda/igemm_wgrad_tile.cuh"\n\n'
        f"using namespace rnk::cuda;\nint main() {{\n{prints}}}\n"
    )
    cuda, _ = toolchain.find_cuda()
    assert cuda is not None
    subprocess.check_call([cuda.nvcc, "-std=c++17", str(program), "-o", str(OUT / "tiles")])
    sizes = subprocess.check_output([str(OUT / "tiles")], text=True).split()
    return {tile: int(size) for tile, size in zip(tiles, sizes, strict=True)}


def blocks_per_multiprocessor(arch: str, kernel: Kernel, shared: int) -> int:
    """How many blocks of the most threads are resident at once."""
    threads, blocks, shared_kib = MULTIPROCESSORS[arch]
    warps = -(-kernel.max_threads // 32)
    # Registers are given to warps in units of 256; a block's shared memory takes 1 KiB more.
    warp_registers = -(-kernel.registers * 32 // 256) * 256
    return min(
        blocks,
        threads // (warps * 32),
        # To each quarter of the multiprocessor its share of the warps.
        REGISTERS // 4 // warp_registers * 4 // warps,
        shared_kib * 1024 // (-(-shared // 128) * 128 + 1024),
    )


def problems(label: str, kernel: Kernel) -> list[str]:
    """A line if the kernel needs local memory."""
    if not kernel.stack and not kernel.spilled:
        return []
    return [f"{label}: stack frame of {kernel.stack} bytes, {kernel.spilled} bytes spilled"]


def resource_table(kernels: dict[str, dict[str, Kernel]], tiles: dict[str, int]) -> list[str]:
    """A row per kernel; kernels[name][arch]."""
    lines = [
        f"| kernel | threads | shared | {' | '.join(f'sm_{arch}' for arch in ARCHS)} |",
        f"|---|--:|--:|{'--:|' * len(ARCHS)}",
    ]
    rows = []
    for name, by_arch in kernels.items():
        tile = TILE.search(name)
        cells, any_kernel = [], by_arch[ARCHS[0]]
        for arch in ARCHS:
            kernel = by_arch[arch]
            shared = kernel.static_shared + (tiles[tile[0]] if tile else 0)
            shared += STEM_WINDOW if name.startswith("igemm_window") else 0
            cells.append(f"{kernel.registers} · {blocks_per_multiprocessor(arch, kernel, shared)}")
        label = igemm_name(name) or f"`{short_name(name)}`"
        memory = f"{shared / 1024:.3g} KiB" if shared else ""
        row = f"| {label} | {any_kernel.max_threads} | {memory} | {' | '.join(cells)} |"
        rows.append((label, row))
    return lines + [row for _, row in sorted(rows)]


def loop_overheads(names: dict[str, str]) -> dict[tuple[str, str], float]:
    """Of each forward kernel on tensor cores, by its name and architecture."""
    overheads = {}
    for arch in LOOP_ARCHS:
        for dtype in ("f16", "bf16", "tf32"):
            source = ROOT / f"csrc/cuda/igemm_fwd_{dtype}.cu"
            code = main_loops.disassemble(cuda_objects.objects_of(arch, source))
            for symbol, instructions in code.items():
                name = igemm_name(names[symbol])
                if name and "gather" not in name:
                    overheads[name, arch] = main_loops.overhead(instructions)
    return overheads


def triton_overhead(dtype: str, rows: int, columns: int, warps: int, rounds: bool) -> float:
    """Of the same product by Triton."""
    import triton_matmul

    cubin = OUT / f"triton_{dtype}_{rows}x{columns}_{rounds}.cubin"
    triton_matmul.compile_matmul(cubin, dtype, rows, columns, warps, rounds)
    (code,) = main_loops.disassemble(cubin).values()
    return main_loops.overhead(code)


def loop_table(overheads: dict[tuple[str, str], float]) -> tuple[list[str], list[str]]:
    """The table, and the tiles whose loops are too long."""
    lines = [
        "| operands, tile | pointwise | Triton | ours / Triton | pointwise +prologue | convolution"
        " | convolution +prologue |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    failures = []
    for dtype in ("fp16", "bf16", "tf32"):
        for rows, columns, warps in ((128, 128, 8), (128, 64, 4), (64, 64, 4)):
            tile = f"{dtype} {rows}x{columns}"

            def ours(kind: str, tile: str = tile) -> str:
                return " · ".join(
                    f"{overheads[f'igemm fwd {tile} {kind}', arch]:.2f}" for arch in LOOP_ARCHS
                )

            rounds = dtype == "tf32"
            element = "fp32" if rounds else dtype
            triton = triton_overhead(element, rows, columns, warps, rounds)
            ratio = overheads[f"igemm fwd {tile} pointwise", "80"] / triton
            if ratio > MAX_RATIO:
                failures.append(f"{tile}: {ratio:.2f} times the instructions of Triton's main loop")
            shown = f"{triton:.2f}"
            if rounds:
                shown += f" ({triton_overhead(element, rows, columns, warps, False):.2f})"
            kinds = [ours(f"{kind}") for kind in ("pointwise +prologue", "convolution")]
            lines.append(
                f"| {tile} | {ours('pointwise')} | {shown} | {ratio:.2f} | {' | '.join(kinds)}"
                f" | {ours('convolution +prologue')} |"
            )
    return lines, failures


def window_line(overheads: dict[tuple[str, str], float]) -> str:
    """The kernels of few channels, where there is no such product to compare with."""
    figures = [
        f"{dtype} "
        + " · ".join(
            f"{overheads[f'igemm fwd {dtype} 64x64 window', arch]:.2f}" for arch in LOOP_ARCHS
        )
        for dtype in ("fp16", "bf16", "tf32")
    ]
    return f"Window kernels (a stem's few channels), 64x64: {', '.join(figures)}."


INTRODUCTION = """\
# What the CUDA kernels take

Written by `make arches` (tools/kernel_resources.py); csrc fingerprint `{fingerprint}`.

## Resources

Registers a thread and, after the dot, the blocks that a multiprocessor holds at once, for each
architecture. Threads are the most of a block, shared memory is static and dynamic together,
with the window of ResNet's stem in 16 bits where the kernel has one.
{spills}

"""

LOOPS = """
## Main loops

Instructions that are no matrix multiplication for each one that is (HMMA), in one turn of the main
loop of the forward kernels: sm_80 · sm_90. Prologues: with relu, leaky relu or none. Triton: the
matrix product of its tutorial with the same tile, warps and three stages, compiled for sm_80 (for
sm_90 it has other instructions). Its tf32 kernel rounds operands as ours do; in brackets what it
takes when it cuts their bits off instead. At most {ratio} times Triton's is allowed.

"""


def main() -> int:
    """1 if a kernel is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = int(os.environ.get("MAX_JOBS", str(os.cpu_count() or 1)))
    parser.add_argument("-j", "--jobs", type=int, default=jobs)
    jobs = parser.parse_args().jobs
    sources = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    compiled = fingerprint()
    cuda_objects.compile_all(sources, ARCHS, jobs)

    kernels: dict[str, dict[str, Kernel]] = {}
    names: dict[str, str] = {}
    failures = []
    for arch in ARCHS:
        for source in sources:
            found = cuda_objects.read_kernels(arch, source)
            demangled = cuda_objects.demangle([kernel.symbol for kernel in found])
            for kernel, name in zip(found, map(plain_name, demangled), strict=True):
                names[kernel.symbol] = name
                kernels.setdefault(name, {})[arch] = kernel
                failures += problems(f"sm_{arch} {igemm_name(name) or name}", kernel)
    table = resource_table(kernels, tiles_shared(list(kernels)))
    overheads = loop_overheads(names)
    loops, too_long = loop_table(overheads)
    spills = "No kernel spills registers or has a stack frame."
    if failures:
        spills = "\nSpilling, which makes `make arches` fail:\n- " + "\n- ".join(failures)
    text = INTRODUCTION.format(fingerprint=compiled, spills=spills) + "\n".join(table) + "\n"
    text += LOOPS.format(ratio=MAX_RATIO) + "\n".join(loops) + "\n"
    DOC.write_text(text + "\n" + window_line(overheads) + "\n")
    print("\n".join([*failures, *too_long]) or f"{len(kernels)} kernels, written to {DOC}")
    return 1 if failures or too_long else 0


if __name__ == "__main__":
    sys.exit(main())
