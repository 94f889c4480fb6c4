"""`python -m benchmarks` alone, which `make bench` runs: all that this machine can measure.

Without a GPU: our CPU kernels and stock PyTorch on every op and on a network, and the emulator's
counters of the CUDA kernels; no number stands in for a GPU. Rows, table and picture go to
runs/bench. The parts below take at most some ten minutes on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import plot, readme

FOLDER = Path("runs/bench")
CPU_PARTS = (
    ("ops", "--device", "cpu", "--batch", "1", "--dtype", "fp32", "--reps", "7", "--budget", "200"),
    ("ops", "--device", "emulated", "--batch", "1", "--dtype", "fp16", "--budget", "150"),
    ("models", "--device", "cpu", "--model", "resnet20", "--batch", "64", "--reps", "9",
     "--budget", "120"),
)  # fmt: skip
# Batches and dtypes are the commands' own: 1, 32, 256 by fp32, tf32, fp16, bf16.
GPU_PARTS = (
    ("ops", "--device", "cuda", "--budget", "3600"),
    ("models", "--device", "cuda", "--budget", "3600"),
)


def _part(arguments: tuple[str, ...]) -> int:
    csv = FOLDER / f"{arguments[0]}_{arguments[2]}.csv"
    csv.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", *arguments, "--csv", str(csv)]
    print("$ python " + " ".join(command[1:]), flush=True)
    return subprocess.run(command).returncode


def run(device: str) -> int:
    """Every part in a process of its own; 0 if all of them went well."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if device == "cpu":
        print("No GPU here: CPU kernels are timed, CUDA kernels counted on the emulator.")
    codes = [_part(part) for part in (CPU_PARTS if device == "cpu" else GPU_PARTS)]
    measured = FOLDER / f"ops_{device}.csv"
    if measured.exists():
        rows = readme.read(measured)
        picture = measured.with_suffix(".png")
        plot.draw(rows, picture)
        print(f"picture: {picture}")
        if device == "cpu":
            print("Milliseconds on all layers of ResNet-50 that were measured:")
            print(readme.op_table(rows))
    if (FOLDER / "ops_emulated.csv").exists():
        print("Counted by the emulator, the same layers:")
        print(readme.counter_table(readme.read(FOLDER / "ops_emulated.csv")))
    codes.append(subprocess.run([sys.executable, "-m", "benchmarks.bytes_model"]).returncode)
    return max(codes)
