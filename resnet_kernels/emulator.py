"""Run compiled GPU kernels (PTX) on the CPU, checked and measured. See docs/emulator.md."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import importlib
import operator
import platform
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .ops import library

__all__ = [
    "Counters",
    "EmulatorError",
    "Run",
    "active",
    "coverage",
    "embedded_ptx",
    "executions",
    "has_kernels",
    "is_active",
    "launch",
    "uncovered_lines",
]


# What -march=x86-64-v3 compiles to, as Linux names it.
_CPU_FLAGS = {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}


def _missing_cpu_flags(cpuinfo: str) -> set[str]:
    """Instruction sets the emulator was compiled for that this CPU lacks."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), None)
    return _CPU_FLAGS - set(flags.split()) if flags else set()


def _load_native() -> Any:
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() in ("x86_64", "AMD64") and cpuinfo.exists():
        missing = _missing_cpu_flags(cpuinfo.read_text())
        if missing:
            raise ImportError(
                "resnet_kernels.emulator needs a CPU of 2013 or later (x86-64-v3); this one lacks "
                + ", ".join(sorted(missing))
            )
    return importlib.import_module("resnet_kernels._emulator")


_native = _load_native()
EmulatorError: type[Exception] = _native.EmulatorError
_loaded = functools.lru_cache(maxsize=256)(_native.load)


@dataclasses.dataclass(frozen=True)
class Counters:
    """What a launch did. Sectors are 32 bytes; `ideal` is the least the same bytes could need.

    `distinct_bytes_*` count each byte of global memory once: the DRAM floor. `by_class` holds
    thread-instructions. `same_value_stores` counts unordered stores of one value to one word.
    """

    warp_instructions: int = 0
    thread_instructions: int = 0
    global_load_sectors: int = 0
    global_load_sectors_ideal: int = 0
    global_store_sectors: int = 0
    global_store_sectors_ideal: int = 0
    global_bytes_loaded: int = 0
    global_bytes_stored: int = 0
    distinct_bytes_read: int = 0
    distinct_bytes_written: int = 0
    shared_load_wavefronts: int = 0
    shared_load_wavefronts_ideal: int = 0
    shared_store_wavefronts: int = 0
    shared_store_wavefronts_ideal: int = 0
    atomics: int = 0
    mma: int = 0
    mma_multiply_adds: int = 0
    barriers: int = 0
    same_value_stores: int = 0
    blocks: int = 0
    warps: int = 0
    by_class: dict[str, int] = dataclasses.field(default_factory=dict)


def launch(
    ptx: str,
    kernel: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Iterable[Any],
    shared_bytes: int = 0,
    *,
    memory: Iterable[Any] = (),
    seed: int = 0,
    detect_races: bool = True,
    count_memory: bool = True,
    max_warp_instructions: int = 1 << 32,
    threads: int = 0,
) -> Counters:
    """Run one kernel of a PTX text on CPU tensors.

    Args:
        ptx: PTX text for a 64-bit target.
        kernel: name of an .entry in it.
        grid, block: one to three sizes.
        args: CPU tensors or numpy arrays (passed as pointers; their whole storage may be touched),
            ctypes or numpy scalars (as wide as the parameter), bytes (a struct), None (null).
        shared_bytes: dynamic shared memory.
        memory: further tensors or arrays that the kernel may touch (pointers inside a struct).
        seed: order in which warps run. A correct kernel does not depend on it.
        detect_races: races, uninitialised shared memory, cp.async read before its wait.
        count_memory: sectors, wavefronts and distinct bytes.
        max_warp_instructions: the launch fails beyond this many.
        threads: host threads; 0 takes all cores.
    Returns: Counters.
    Raises: EmulatorError, whose `kind` names the defect; TypeError for an untyped argument;
        ValueError for a number out of range.
    """
    if not isinstance(ptx, str) or not isinstance(kernel, str):
        raise TypeError("ptx, kernel: expected PTX text and a name, both str")
    module = _loaded(ptx)
    packed = []
    ranges = []
    for index, arg in enumerate(args):
        kind, data, span = _pack(arg, index)
        packed.append((kind, data))
        if span is not None:
            ranges.append((*span[:2], f"argument {index}", span[2]))
    for index, extra in enumerate(memory):
        _, _, span = _pack(extra, index)
        if span is None:
            raise TypeError(f"memory[{index}]: expected a tensor or array")
        ranges.append((*span[:2], f"memory {index}", span[2]))
    counts = module.launch(
        kernel,
        _triple(grid),
        _triple(block),
        packed,
        ranges,
        _integer("shared_bytes", shared_bytes, 0, 2**32 - 1),
        _integer("seed", seed, 0, 2**64 - 1),
        detect_races,
        count_memory,
        _integer("max_warp_instructions", max_warp_instructions, 1, 2**64 - 1),
        _integer("threads", threads, 0, 2**31 - 1),
    )
    return Counters(**counts)


@dataclasses.dataclass
class Run:
    """What ran inside `active()`: launches and summed Counters of each kernel, by mangled name."""

    kernels: dict[str, tuple[int, Counters]] = dataclasses.field(default_factory=dict)


def has_kernels() -> bool:
    """Whether this installation carries the CUDA kernels: it was built where nvcc is."""
    return bool(_native.embedded())


def is_active() -> bool:
    """Whether public ops that start now on CPU tensors go through the emulated CUDA library."""
    return library.default_backend() == "emulated"


@contextlib.contextmanager
def active(
    seed: int = 0,
    *,
    detect_races: bool = True,
    count_memory: bool = True,
    max_warp_instructions: int = 1 << 32,
    threads: int = 0,
) -> Iterator[Run]:
    """Public ops on CPU tensors that start inside run as emulated CUDA kernels.

    Args: as those of `launch`.
    Returns: a Run, filled when the block ends.
    Raises: RuntimeError where the installation was built without nvcc: it has no CUDA kernels.
    """
    if not has_kernels():
        raise RuntimeError(
            "emulator.active() runs this library's CUDA kernels, and this installation was built "
            "without nvcc (see `resnet-kernels info`); emulator.launch() of PTX text works"
        )
    run = Run()
    _native.take_records()
    _native.set_options(seed, detect_races, count_memory, max_warp_instructions, threads)
    before = library.set_default_backend("emulated")
    try:
        yield run
    finally:
        library.set_default_backend(before)
        records = _native.take_records()
        run.kernels = {name: (count, Counters(**c)) for name, (count, c) in records.items()}
        _native.set_options(0, True, True, 1 << 32, 0)


def coverage() -> dict[str, tuple[int, int]]:
    """Instructions executed and instructions in all, by kernel.

    Of every PTX text seen so far and of every kernel inside the library: one that no launch ran
    counts with zero. Kernels of one name in several PTX texts add up.
    """
    table: dict[str, tuple[int, int]] = {}
    for (_, kernel), rows in executions().items():
        executed, total = table.get(kernel, (0, 0))
        executed += sum(warps > 0 for _, warps in rows)
        table[kernel] = (executed, total + len(rows))
    return table


def executions() -> dict[tuple[str, str], list[tuple[int, int]]]:
    """PTX line and executions by warps of every instruction, by module and kernel.

    A module inside the library is named "library:" and a digest of its text, others by the digest.
    """
    table = {}
    for module in _native.modules():
        name = _module_name(module)
        for kernel in module.kernels:
            rows = [(line, warps) for line, warps, _ in module.coverage(kernel)]
            table[name, kernel] = rows
    return table


def embedded_ptx() -> dict[str, str]:
    """The PTX texts inside the library, by the name `executions` gives them."""
    return {_module_name(m): m.ptx for m in _native.modules() if m.embedded}


def _module_name(module: Any) -> str:
    digest = hashlib.sha256(module.ptx.encode()).hexdigest()[:16]
    return "library:" * module.embedded + digest


def uncovered_lines(ptx: str, kernel: str) -> list[int]:
    """PTX lines of a kernel that no launch of this process has executed."""
    rows = _loaded(ptx).coverage(kernel)
    ran = {line for line, warps, _ in rows if warps}
    return sorted({line for line, _, _ in rows} - ran)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}") from None
    if not low <= number <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {number}")
    return number


def _triple(sizes: int | Sequence[int]) -> list[int]:
    values = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes]
    if not 1 <= len(values) <= 3:
        raise ValueError(f"grid and block take one to three sizes, got {sizes!r}")
    numbers = [_integer("grid, block", v, -(2**63), 2**63 - 1) for v in values]
    return [*numbers, 1, 1][:3]


def _pack(arg: Any, index: int) -> tuple[str, bytes, tuple[int, int, bool] | None]:
    """Kind, bytes and memory (address, size, read only?) of one kernel argument."""
    if arg is None:
        return "p", struct.pack("<Q", 0), None
    if hasattr(arg, "untyped_storage"):
        if arg.device.type != "cpu":
            raise TypeError(f"args[{index}]: expected a CPU tensor, got one on {arg.device}")
        try:
            storage = arg.untyped_storage()
        except NotImplementedError:
            raise TypeError(f"args[{index}]: expected a dense tensor, got {arg.layout}") from None
        span = (storage.data_ptr(), storage.nbytes(), False)
        return "p", struct.pack("<Q", arg.data_ptr()), span
    if isinstance(arg, np.ndarray) and not arg.dtype.hasobject:
        low, high = np.lib.array_utils.byte_bounds(arg)
        span = (low, high - low, not arg.flags.writeable)
        return "p", struct.pack("<Q", arg.ctypes.data), span
    if isinstance(arg, (np.generic, ctypes._SimpleCData, ctypes.Structure, ctypes.Array, bytes)):
        data = bytes(arg) if not isinstance(arg, np.generic) else arg.tobytes()
        is_float = isinstance(arg, (np.floating, ctypes.c_float, ctypes.c_double))
        is_block = isinstance(arg, (bytes, ctypes.Structure, ctypes.Array))
        return "b" if is_block else "f" if is_float else "i", data, None
    raise TypeError(
        f"args[{index}]: expected a tensor, array, None, or a typed scalar "
        f"(ctypes.c_int32(3), numpy.float32(2)), got {type(arg).__name__}"
    )
