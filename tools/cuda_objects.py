"""Compiles csrc/cuda with the flags of setup.py and reads what the compiler says of each kernel."""

from __future__ import annotations

import dataclasses
import re
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/resources"
sys.path.insert(0, str(ROOT))
from csrc import toolchain  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instantiation in one architecture's object."""

    symbol: str
    registers: int
    static_shared: int
    stack: int
    spilled: int
    max_threads: int  # of __launch_bounds__


def objects_of(arch: str, source: Path) -> Path:
    """Where the object of one source for one architecture lies."""
    return OUT / arch / f"{source.stem}.cubin"


def compile_all(sources: list[Path], archs: tuple[str, ...], jobs: int) -> None:
    """Brings the objects of all sources and architectures up to date, with ninja.

    What ptxas says of a kernel stays beside the object, which is missing where kernels spill.
    """
    cuda, reason = toolchain.find_cuda()
    if cuda is None:
        raise SystemExit(f"kernel_resources: {reason}")
    flags = f"{toolchain.NVCC_LANGUAGE} {toolchain.NVCC_CHECKS} -Xptxas -v"
    lines = [
        f"rule nvcc\n command = {cuda.nvcc} -MD -MF $out.d {flags}"
        " -gencode arch=compute_$arch,code=sm_$arch -cubin $in -o $out 2> $out.log"
        " || { grep -iE 'error|warning|fatal' $out.log; exit 1; }\n depfile = $out.d\n deps = gcc"
    ]
    for arch in archs:
        for source in sources:
            lines += [f"build {objects_of(arch, source)}: nvcc {source}", f" arch = {arch}"]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "build.ninja").write_text("\n".join(lines) + "\n")
    # All of them, whichever fail.
    command = [*toolchain.ninja(), "--quiet", "-k", "0", "-C", str(OUT), "-j", str(jobs)]
    subprocess.run(command)
    for arch in archs:
        for source in sources:
            log = Path(f"{objects_of(arch, source)}.log").read_text()
            # What else than spills is wrong has been printed.
            if re.search(r"error\s*:(?! *Registers are spilled)", log):
                raise SystemExit(1)
            if "Registers are spilled" in log:
                objects_of(arch, source).unlink(missing_ok=True)


def _max_threads(cubin: bytes) -> dict[str, int]:
    """The launch bounds of each kernel: an attribute in the ELF section .nv.info.<symbol>."""
    start, entry_size, count, names = struct.unpack_from("<Q10xHHH", cubin, 40)
    # Name, offset and size of each section.
    headers = [struct.unpack_from("<I20xQQ", cubin, start + i * entry_size) for i in range(count)]
    found = {}
    for name, offset, size in headers:
        at = headers[names][1] + name
        section = cubin[at : cubin.index(0, at)].decode()
        # Format 4 (a value of 12 bytes), attribute 5 (most threads): x, y, z.
        attributes = cubin[offset : offset + size]
        threads = attributes.find(b"\x04\x05\x0c\x00")
        if section.startswith(".nv.info.") and threads >= 0:
            x, y, z = struct.unpack_from("<3I", attributes, threads + 4)
            found[section.removeprefix(".nv.info.")] = x * y * z
    return found


def read_kernels(arch: str, source: Path) -> list[Kernel]:
    """The kernels of one source for one architecture."""
    log = Path(f"{objects_of(arch, source)}.log").read_text()
    # Launch bounds are the same for all architectures: where this one's object is missing, another
    # has them.
    threads: dict[str, int] = {}
    for cubin in OUT.glob(f"*/{source.stem}.cubin"):
        threads.update(_max_threads(cubin.read_bytes()))
    kernels = []
    for entry in log.split("Compiling entry function '")[1:]:
        symbol = entry.split("'")[0]

        def number(pattern: str, text: str = entry) -> int:
            match = re.search(pattern, text)
            return int(match[1]) if match else 0

        kernels.append(
            Kernel(
                symbol,
                registers=number(r"Used (\d+) registers"),
                static_shared=number(r"(\d+) bytes smem"),
                stack=number(r"(\d+) bytes stack frame"),
                spilled=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
                max_threads=threads.get(symbol, 0),
            )
        )
    return kernels


def demangle(symbols: list[str]) -> list[str]:
    """The C++ names, in the same order."""
    run = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True)
    return run.stdout.splitlines()
