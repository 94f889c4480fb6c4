"""Shared by the per-op benches: gate, interleaved times against plain torch, table, CSV."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from resnet_kernels.bench import report
from resnet_kernels.bench.timing import interleave

Op = Callable[..., Tensor]
COLUMNS = {
    "op": "op",
    "shape": "shape",
    "dtype": "dtype",
    "ours_ms": "ours ms",
    "torch_ms": "torch ms",
    "time_ratio": "ours / torch",
    "ours_gb_s": "ours GB/s",
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Activations of ResNet-50 at 224 pixels, one of each stage (N is set by --batch-size), and one of
# a CIFAR network: [C, H, W].
SHAPES = [(64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (64, 32, 32)]


@dataclasses.dataclass(frozen=True)
class Case:
    """One op on one shape. `ours` and `theirs` take the same tensors and return the same one.

    `passes` counts how often a tensor of the activation's size must be read or written.
    """

    op: str
    tensors: tuple[Tensor, ...]
    ours: Op
    theirs: Op
    passes: float


def activation(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Seeded [N, C, H, W] in channels_last memory."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=draw).to(dtype)
    return values.contiguous(memory_format=torch.channels_last)


def vectors(channels: int, count: int, seed: int = 1) -> tuple[Tensor, ...]:
    """Seeded positive [C] fp32 vectors."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, channels, generator=draw).add(0.5).unbind())


def check(case: Case) -> None:
    """Our error against plain torch in fp64 is at most twice plain torch's, plus eight roundings.

    Raises: SystemExit naming the op; there are no numbers from a wrong kernel.
    """
    exact = case.theirs(*(t.double() if t.is_floating_point() else t for t in case.tensors))
    norm = exact.norm().clamp_min(1e-300)
    ours, theirs = (
        ((run(*case.tensors).double() - exact).norm() / norm).item()
        for run in (case.ours, case.theirs)
    )
    limit = 2 * theirs + 8 * torch.finfo(case.tensors[0].dtype).eps
    if not ours <= limit:
        raise SystemExit(f"{case.op}: error {ours:.2e} over the limit {limit:.2e}; not measured")


def measure(case: Case, dtype: str, reps: int) -> dict[str, object]:
    """One CSV row; the gate comes first."""
    check(case)
    calls = {
        "ours": lambda: case.ours(*case.tensors),
        "torch": lambda: case.theirs(*case.tensors),
    }
    timings = interleave(calls, reps, warmup=3)
    ours, theirs = timings["ours"], timings["torch"]
    moved = case.passes * case.tensors[0].numel() * case.tensors[0].element_size()
    return {
        **report.environment(torch.device("cpu")),
        "op": case.op,
        "shape": "x".join(map(str, case.tensors[0].shape)),
        "dtype": dtype,
        "reps": reps,
        "ours_p20_ms": f"{ours.p20:.4f}",
        "ours_ms": f"{ours.p50:.4f}",
        "ours_p80_ms": f"{ours.p80:.4f}",
        "torch_p20_ms": f"{theirs.p20:.4f}",
        "torch_ms": f"{theirs.p50:.4f}",
        "torch_p80_ms": f"{theirs.p80:.4f}",
        "time_ratio": f"{ours.p50 / theirs.p50:.3f}",
        "ours_gb_s": f"{moved / ours.p50 / 1e6:.1f}",
    }


Cases = Callable[[tuple[int, int, int, int], torch.dtype], Iterable[Case]]


def main(title: str, cases: Cases) -> None:
    """Command line of one bench: all shapes, a table, rows appended to the CSV."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--reps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--csv", type=Path, default=Path("runs/bench_ops.csv"))
    options = parser.parse_args(sys.argv[1:])
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [
        measure(case, options.dtype, options.reps)
        for shape in SHAPES
        for case in cases((options.batch_size, *shape), DTYPES[options.dtype])
    ]
    report.show(title, rows, COLUMNS)
    report.append_csv(options.csv, rows)
