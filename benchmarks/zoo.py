"""What fuse() makes of the models of torchvision and timm: whether right, how much, how fast.

Each model and its fused copy take a training step and an eval forward, batch 2, 64 pixels. In fp64
both must agree to rounding; in fp32 the fused copy's error against the fp64 stock model stands
beside the stock model's own. Times are of a training step, of detectors of an eval forward.
Appends to benchmarks/results/zoo.csv and fills docs/zoo.md with each model's latest row.
"""

from __future__ import annotations

import argparse
import copy
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision.ops import FrozenBatchNorm2d

from resnet_kernels import explain, fuse
from resnet_kernels.bench import report
from resnet_kernels.bench.timing import interleave

from . import traffic
from .zoo_models import Entry, batch, entries, loss

CSV = Path("benchmarks/results/zoo.csv")
PAGE = Path("docs/zoo.md")
# Both differ by rounding alone; deep networks over few values amplify it.
FP64_LIMIT = 1e-6
NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)


def step(model: nn.Module, task: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(loss, all gradients as one vector) of a training step."""
    model.train().zero_grad()
    value = loss(model, task, *batch(task, dtype))
    value.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return value.detach(), torch.cat(grads)


def forward(model: nn.Module, task: str, dtype: torch.dtype) -> Tensor:
    """All floating-point outputs in eval mode as one vector."""
    inputs = batch(task, dtype)[0]
    with torch.no_grad():
        out = model.eval()(inputs)
    return torch.cat([v.flatten() for v in pytree.tree_leaves(out) if v.is_floating_point()])


def results(model: nn.Module, task: str, dtype: torch.dtype) -> list[Tensor]:
    """Eval output, loss, gradients, and running statistics after the step, in fp64."""
    out = forward(model, task, dtype)
    if not len(out):
        raise SystemExit("nothing to compare: the model found no objects")
    value, grads = step(model, task, dtype)
    buffers = [b.flatten().double() for b in model.buffers()]
    return [out.double(), value.double(), grads.double(), torch.cat(buffers)]


def error(actual: Tensor, exact: Tensor) -> float:
    """Relative L2 distance; infinite if sizes differ, as when a detector finds something else."""
    if actual.shape != exact.shape:
        return float("inf")
    return ((actual - exact).norm() / exact.norm().clamp_min(1e-30)).item()


def chains(model: nn.Module) -> tuple[int, int, str]:
    """Batch norms that run in a fused op, all of them, and why most of the others do not."""
    norms = {name for name, module in model.named_modules() if isinstance(module, NORMS)}
    table = explain(model)
    fused = norms & {name for row in table.fused for name in row.layers}
    left = [row for row in table.unfused if norms & set(row.layers)]
    reasons = Counter(row.reason for row in left).most_common(1)
    return len(fused), len(norms), reasons[0][0] if reasons else ""


def measure(entry: Entry, reps: int) -> dict[str, object]:
    """The CSV row of one model."""
    torch.manual_seed(0)
    stock = entry.build()
    fused = fuse(copy.deepcopy(stock))
    exact_model = copy.deepcopy(stock).double()
    twin = fuse(copy.deepcopy(exact_model))
    exact = results(exact_model, entry.task, torch.float64)
    differences = [
        error(a, b) for a, b in zip(results(twin, entry.task, torch.float64), exact, strict=True)
    ]
    errors = {}
    for who, model in (("stock", stock), ("fused", fused)):
        found = results(model, entry.task, torch.float32)
        errors[who] = [error(a, b) for a, b in zip(found, exact, strict=True)]
    count, of, reason = chains(fused.train())
    run: Any = forward if entry.task == "detect" else step
    calls = {
        "stock": lambda: run(stock, entry.task, torch.float32),
        "fused": lambda: run(fused, entry.task, torch.float32),
    }
    timings = interleave(calls, reps, warmup=0)  # both have run already
    row: dict[str, object] = {
        **report.environment(torch.device("cpu")),
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "library": entry.library,
        "model": entry.name,
        "task": entry.task,
        # Each by itself: max() may pass over a NaN.
        "right": "yes" if all(value <= FP64_LIMIT for value in differences) else "no",
        "fp64_difference": f"{max(differences):.1e}",
    }
    for index, what in enumerate(("output", "loss", "gradient")):
        for who in ("stock", "fused"):
            row[f"{who}_{what}_error"] = f"{errors[who][index]:.1e}"
    ratio = timings["fused"].p50 / timings["stock"].p50
    return row | {
        "fused_norms": count,
        "norms": of,
        "reason": reason,
        "reps": reps,
        "stock_ms": f"{timings['stock'].p50:.1f}",
        "fused_ms": f"{timings['fused'].p50:.1f}",
        "time_ratio": f"{ratio:.2f}",
    }


def page_lines(rows: list[dict[str, str]]) -> list[str]:
    """The table of docs/zoo.md and what it was measured with."""
    stamps = {
        f"{r['date']}, torch {r['torch']}, torchvision {r['torchvision']}, timm {r['timm']}, "
        f"{r['device']}, {r['threads']} thread"
        for r in rows
    }
    lines = [f"Measured: {'; '.join(sorted(stamps))}.", ""]
    lines += [
        "| model | task | right | norms fused | why not the others | output error "
        "| gradient error | time, fused / stock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['library']} {r['model']} | {r['task']} | {r['right']} "
            f"| {r['fused_norms']} / {r['norms']} | {r['reason']} "
            f"| {r['fused_output_error']} ({r['stock_output_error']}) "
            f"| {r['fused_gradient_error']} ({r['stock_gradient_error']}) | {r['time_ratio']} |"
        )
    return lines


def write_page(path: Path) -> None:
    """Fills docs/zoo.md with the latest row of each model that the CSV has."""
    with path.open(newline="") as file:
        latest = {(r["library"], r["model"]): r for r in csv.DictReader(file)}
    order = [(entry.library, entry.name) for entry in entries()]
    rows = [latest[key] for key in order if key in latest]
    traffic.write_section("zoo", "\n".join(page_lines(rows)), PAGE)


def main() -> None:
    """Command line: a row a model; exits with 1 if a model is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="names; all without it")
    parser.add_argument("--library", choices=("torchvision", "timm"))
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=CSV)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wrong = []
    for entry in entries():
        if options.models and entry.name not in options.models:
            continue
        if options.library not in (None, entry.library):
            continue
        row = measure(entry, options.reps)
        report.append_csv(options.csv, [row])
        keys = ("right", "fp64_difference", "fused_norms", "norms", "time_ratio", "reason")
        print(f"{entry.library} {entry.name}:", *(row[key] for key in keys), flush=True)
        if row["right"] != "yes":
            wrong.append(entry.name)
    if options.csv == CSV:
        write_page(CSV)
    if wrong:
        raise SystemExit(f"not the same as stock: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
