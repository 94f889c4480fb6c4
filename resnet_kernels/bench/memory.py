"""Memory of a step: what autograd keeps for backward, and the peak that one step adds.

The peak is measured in a process of its own per provider: on the CPU the high-water mark of the
resident set over its level at rest (weights and optimizer loaded, two steps done, gradients and
what allocators keep freed) in two more steps, the second with what the first left to it; on a GPU
torch's allocated bytes likewise.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..ops import empty_cache
from .workload import Case, Workload

WARMUP_STEPS = 2


def saved_bytes(work: Workload) -> int:
    """Bytes of the distinct storages that one forward keeps for backward, input included.

    Parameters and buffers are not counted: they are there anyway.
    """
    model = work.module
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # a storage freed within forward must not lend its address to another

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work.loss()
    return sum(sizes.values())


def peak_of_step(work: Workload) -> int | None:
    """Bytes that a step needs at most above rest; None where the system does not tell."""
    for _ in range(WARMUP_STEPS):
        work.run()
    work.clear()

    def steps() -> None:
        for _ in range(2):  # what the ops keep for the next step is in the second one's peak
            work.run()

    return peak_of_call(steps, work.images.device)


def peak_of_call(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call needs at most above rest; None where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        rest = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - rest
    if not _reset_high_water():
        return None
    rest = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - rest


def _reset_high_water() -> bool:
    empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what glibc keeps of freed blocks is no part of rest
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except (OSError, AttributeError):
        return False


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def peak_in_subprocess(provider: str, case: Case, threads: int) -> int | None:
    """`peak_of_step` in a fresh process.

    Raises: RuntimeError with the last line of its output if it fails.
    """
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (package_root, os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            __name__,
            provider,
            json.dumps(dataclasses.asdict(case)),
            str(threads),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(f"the memory measurement of {provider} failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _main(provider: str, case: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    print(json.dumps(peak_of_step(Workload(provider, Case(**json.loads(case))))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
