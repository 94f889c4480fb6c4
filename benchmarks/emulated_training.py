"""Trains a small network on the emulated CUDA kernels, on the CPU kernels and in stock torch.

A CIFAR ResNet-8 of width 8 takes 20 steps of SGD on 16 scanned digits of 16 x 16 pixels, in fp32,
in tf32 and in bf16 under autocast, with the emulator's detectors on. Appends the losses to
benchmarks/results/emulated_training.csv and the first step's gradients against fp64 to
benchmarks/results/emulated_training_gradients.csv, draws docs/images/emulated_training.png and
fills docs/emulated_training.md. Fails, and writes nothing, if a gradient is farther from fp64's
than digits_training.ALLOWED or if a kernel fell back to plain torch on the emulator.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from resnet_kernels import emulator, fuse
from resnet_kernels.bench import report
from resnet_kernels.ops import library
from resnet_kernels.training.plots import save_figure

from . import traffic
from .digits_training import (
    MODES,
    Batch,
    Distance,
    digits,
    fp32_precision,
    network,
    train,
    train_exactly,
    train_stock,
    worse_than_allowed,
)

STEPS = 20
PAGE = Path(__file__).parents[1] / "docs/emulated_training.md"
PICTURE = PAGE.parent / "images/emulated_training.png"
STOCK, CPU, EMULATED = "stock torch", "CPU kernels", "CUDA kernels, emulated"
STYLES = {EMULATED: "-", CPU: "--", STOCK: ":"}


class Course(NamedTuple):
    """A run: its precision, what computed it, losses of the steps, gradients of the first."""

    mode: str
    backend: str
    losses: list[float]
    first: dict[str, Tensor]


def train_on_cpu(model: nn.Module, batch: Batch, mode: str, steps: int) -> tuple:
    return train(fuse(copy.deepcopy(model)), batch, mode, steps)


def train_emulated(model: nn.Module, batch: Batch, mode: str, steps: int) -> tuple:
    """Raises SystemExit if anything ran outside the CUDA kernels."""
    library.fallback_counts(reset=True)
    with emulator.active(), fp32_precision(mode):
        result = train(fuse(copy.deepcopy(model)), batch, mode, steps)
    if outside := library.fallback_counts():
        raise SystemExit(f"{mode}: {outside} ran as plain torch")
    return result


# The CPU kernels have no tf32: there fp32 is fp32.
BACKENDS: dict[str, tuple[Callable[..., tuple], tuple[str, ...]]] = {
    STOCK: (train_stock, MODES),
    CPU: (train_on_cpu, ("fp32", "bf16")),
    EMULATED: (train_emulated, MODES),
}


def courses(steps: int) -> tuple[Course, list[Course]]:
    """Stock torch in fp64, and every backend in every mode that it has."""
    model, batch = network(), digits(torch.Generator().manual_seed(1))
    exact = Course("fp64", STOCK, *train_exactly(model, batch, steps))
    found = []
    for mode in MODES:
        for backend, (run, modes) in BACKENDS.items():
            if mode in modes:
                found.append(Course(mode, backend, *run(model, batch, mode, steps)))
                print(mode, backend, found[-1].losses, file=sys.stderr, flush=True)
        check(found, exact)
    return exact, found


def of(found: list[Course], mode: str, backend: str) -> Course:
    return next(c for c in found if (c.mode, c.backend) == (mode, backend))


def check(found: list[Course], exact: Course) -> None:
    """Raises: SystemExit naming the gradients that are too far from fp64's."""
    for course in found:
        stock = of(found, course.mode, STOCK)
        if bad := worse_than_allowed(course.mode, course.first, stock.first, exact.first):
            raise SystemExit(f"{course.mode} {course.backend}:\n" + "\n".join(bad))


def loss_rows(found: list[Course]) -> list[dict[str, object]]:
    return [
        {"mode": c.mode, "backend": c.backend, "step": step, "loss": f"{loss:.7g}"}
        for c in found
        for step, loss in enumerate(c.losses, 1)
    ]


def gradient_rows(found: list[Course], exact: Course) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for c in found:
        for name, want in exact.first.items():
            error = Distance.of(c.first[name], want)
            stock = Distance.of(c.first[name], of(found, c.mode, STOCK).first[name])
            numbers = (*error, stock.l2)
            columns = ("largest", "relative_l2", "cosine", "relative_l2_from_stock")
            cells = {k: f"{v:.9g}" for k, v in zip(columns, numbers, strict=True)}
            rows.append({"mode": c.mode, "backend": c.backend, "parameter": name, **cells})
    return rows


def summary_table(found: list[Course], exact: Course) -> str:
    """A row for each run: losses, their distance from fp64's, the worst gradient."""
    lines: list[tuple[object, ...]] = []
    for c in (exact, *found):
        distances = [Distance.of(c.first[name], want) for name, want in exact.first.items()]
        away = max(abs(a - b) for a, b in zip(c.losses, exact.losses, strict=True))
        losses = (f"{c.losses[i]:.4f}" for i in (0, len(c.losses) // 2 - 1, -1))
        errors = (f"{max(d.l2 for d in distances):.1e}", f"{min(d.cosine for d in distances):.6f}")
        lines.append((f"{c.mode}, {c.backend}", *losses, f"{away:.1e}", *errors))
    steps = len(exact.losses)
    headings = ("run", "loss, step 1", f"step {steps // 2}", f"step {steps}",
                "farthest from fp64's curve", "worst gradient, L2", "least cosine")  # fmt: skip
    return traffic.table(headings, lines)


def gradient_table(found: list[Course], exact: Course, mode: str) -> str:
    """A row for each parameter: each backend's distance from fp64."""
    backends = [c for c in found if c.mode == mode]
    lines = []
    for name, want in exact.first.items():
        cells = [name, "x".join(map(str, want.shape))]
        for c in backends:
            error = Distance.of(c.first[name], want)
            cells += [f"{error.largest:.1e}", f"{error.l2:.1e}", f"{error.cosine:.6f}"]
        lines.append(cells)
    headings = ["parameter", "shape"]
    for c in backends:
        headings += [f"{c.backend}: max", "L2", "cosine"]
    return traffic.table(headings, lines)


def draw(found: list[Course], exact: Course, path: Path) -> None:
    """All loss curves in one picture, and beside it how far each is from fp64's."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    curves, distances = figure.subplots(1, 2)
    steps = range(1, len(exact.losses) + 1)
    curves.plot(steps, exact.losses, color="black", linewidth=0.8, label="fp64, stock torch")
    for c in found:
        look = {"color": f"C{MODES.index(c.mode)}", "label": f"{c.mode}, {c.backend}"}
        curves.plot(steps, c.losses, STYLES[c.backend], **look)
        away = [max(abs(a - b), 1e-8) for a, b in zip(c.losses, exact.losses, strict=True)]
        distances.plot(steps, away, STYLES[c.backend], **look)
    curves.set_ylabel("training loss")
    distances.set_ylabel("distance of the loss from fp64's")
    distances.set_yscale("log")
    for axes in (curves, distances):
        axes.set_xlabel("step")
        axes.set_xticks(range(0, len(exact.losses) + 1, 5))
        axes.grid(alpha=0.3)
    curves.legend()
    save_figure(figure, path)


def main() -> None:
    exact, found = courses(STEPS)
    where = report.environment(torch.device("cpu"))
    results = {
        "emulated_training.csv": loss_rows([exact, *found]),
        "emulated_training_gradients.csv": gradient_rows(found, exact),
    }
    for name, rows in results.items():
        report.append_csv(traffic.RESULTS / name, [{**where, **row} for row in rows])
    draw(found, exact, PICTURE)
    traffic.write_section("runs", summary_table(found, exact), PAGE)
    for mode in MODES:
        traffic.write_section(f"gradients_{mode}", gradient_table(found, exact, mode), PAGE)


if __name__ == "__main__":
    main()
