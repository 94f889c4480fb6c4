"""`python -m benchmarks models`: training steps and inference of whole networks, gate first.

Around resnet_kernels.bench, which `resnet-kernels bench` runs too: more providers, tf32, CUDA
graphs, what part of the device's peaks a network reaches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet_kernels.bench import gate, report, step, workload
from resnet_kernels.bench.workload import Case
from resnet_kernels.cli.bench import is_cifar

from . import providers, roofline
from .ops import Row, Skipped

# Provider -> that of resnet_kernels.bench.workload.
OURS = {"cuda": "fused", "triton": "fused_triton", "cpu": "fused"}
STOCK = (*workload.EAGER, *workload.COMPILED)
NAMES = (*OURS, *STOCK)
DEFAULT = {"cuda": ("cuda", "triton", *STOCK), "cpu": ("cpu", *workload.EAGER, "compile")}
COLUMNS = {
    "provider": "provider",
    "p20_ms": "p20 ms",
    "p50_ms": "p50 ms",
    "p80_ms": "p80 ms",
    "images_per_second": "images/s",
    "time_ratio": "/ best eager",
    "math_percent": "% maths",
    "saved_mb": "saved MB",
    "peak_mb": "peak MB",
}


def multiply_adds(case: Case) -> int:
    """Of one image: those that the network defines. A step's backward sums as many products for the
    filters as forward, and as many for the activations, of which the images want none."""
    model = workload.create_model(case, fused=False).to("meta")
    images = torch.empty(1, case.channels, case.size, case.size, device="meta")
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    seen: list[torch.Size] = []
    hook = first.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    hook.remove()
    forward = counter.get_total_flops() // 2
    stem = seen[0].numel() * first.weight[0].numel()
    return 3 * forward - stem if case.train else forward


def _cases(options: argparse.Namespace) -> list[Case]:
    gpu = options.device == "cuda"
    batches = options.batch or ([1, 32, 256] if gpu else [8])
    dtypes = options.dtype or (["fp32", "tf32", "fp16", "bf16"] if gpu else ["fp32"])
    return [
        Case(
            model=model,
            batch=batch,
            size=options.size or (32 if is_cifar(model) else 224),
            dtype=dtype,
            train=what == "step",
            device=options.device,
            classes=10 if is_cifar(model) else 1000,
            graph=options.graph,
        )
        for model in options.model
        for what in options.what
        for dtype in dtypes
        for batch in batches
    ]


def _name(case: Case) -> str:
    return f"{case.model} {'step' if case.train else 'infer'} N{case.batch} {case.dtype}"


def rows_of(case: Case, names: list[str], options: argparse.Namespace) -> list[Row]:
    """Measures one case; rows as `resnet-kernels bench` has them, and what part of the peak."""
    known = [OURS.get(name, name) for name in names]
    peaks = roofline.measure(torch.device(case.device), case.dtype)
    found = step.measure(case, known, options.reps, 2, not options.no_peak, Console())
    products = multiply_adds(case) * case.batch
    rows: list[Row] = []
    for name, row in zip(names, step.rows_of(case, found), strict=True):
        tflop_s = 2 * products / float(str(row["p50_ms"])) / 1e9
        more: dict[str, Any] = {
            "provider": name,
            "graph": "yes" if case.graph else "no",
            "multiply_adds": products,
            "math_percent": f"{100 * tflop_s / peaks.tflop_s:.1f}",
        }
        rows.append({**row, **more, **peaks.columns()})
    return rows


def _present(case: Case, names: Sequence[str], skipped: Skipped) -> list[str]:
    present = []
    for name in names:
        if why := providers.unavailable(name, torch.device(case.device), case.dtype):
            skipped.add(why, f"{name} {_name(case)}")
        else:
            present.append(name)
    return present


def _passes(case: Case, names: Sequence[str]) -> bool:
    """The gate, for each of our backends that is to be measured."""
    for name in OURS:
        if name in names:
            with workload.on_backend(workload.FUSED[OURS[name]]):
                verdict = gate.check(case)
            print(f"{_name(case)}, {name}: {verdict}")
            if not verdict.passed:
                return False
    return True


def run(options: argparse.Namespace) -> int:
    """The command; 1 if a gate failed."""
    end = time.monotonic() + options.budget if options.budget else float("inf")
    skipped, failed = Skipped(), 0
    for case in _cases(options):
        if time.monotonic() > end:
            skipped.add("budget", _name(case))
            continue
        names = _present(case, options.providers or DEFAULT[options.device], skipped)
        if not names:
            continue
        if not _passes(case, names):
            failed = 1
            continue
        try:
            rows = rows_of(case, names, options)
        except torch.OutOfMemoryError:
            skipped.add("out of memory", _name(case))
            torch.cuda.empty_cache()
            continue
        report.show(f"{_name(case)}, {rows[0]['device']}", rows, COLUMNS)
        report.append_csv(options.csv, rows)
        print(f"appended {len(rows)} rows to {options.csv}")
    if skipped:
        print(skipped)
    return failed
