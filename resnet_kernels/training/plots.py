"""Loss and accuracy curves of one run, or of several in one picture.

Runs that differ in nothing but their seed are one curve, the mean, with a band from the lowest to
the highest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checkpoint import atomic_file
from .config import CHANGEABLE_ON_RESUME
from .errors import UserError
from .metrics import Run

# What may differ between two runs of one curve, beside where they ran.
_NOT_COMPARED = CHANGEABLE_ON_RESUME - {"epochs"} | {"seed"}
# The running mean spans this part of the steps drawn: wide enough to see which curve is lower.
_SMOOTHED_PART = 25


def plot_runs(runs: Sequence[Run], path: Path) -> None:
    """Draws the training loss of each step (thin: as it was; thick: running mean), then loss and
    accuracy over epochs (solid: test set; dashed: training)."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    by_step, by_epoch, accuracy = figure.subplots(1, 3)
    for number, (label, group) in enumerate(curves(runs).items()):
        color = f"C{number}"
        _draw_steps(by_step, group, color, label)
        for axes, quantity in ((by_epoch, "loss"), (accuracy, "accuracy")):
            for split, style in (("train", "--"), ("test", "-")):
                columns = [[row[f"{split}_{quantity}"] for row in run.epochs] for run in group]
                epochs = [row["epoch"] for row in min(group, key=lambda r: len(r.epochs)).epochs]
                name = f"{label} {split}".strip()
                _draw_mean(axes, epochs, columns, style, color, name, marker=".")
    titles = (("step", "training loss"), ("epoch", "loss"), ("epoch", "accuracy"))
    for axes, (x, y) in zip((by_step, by_epoch, accuracy), titles, strict=True):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    by_step.set_yscale("log")
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a matplotlib figure whole or not at all. Raises UserError if that fails."""
    kind = path.suffix.lstrip(".").lower() or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise UserError(f"--out: expected a picture's name such as curves.png, got {path.name}")
    try:
        with atomic_file(path) as file:
            figure.savefig(file, format=kind, dpi=120)
    except OSError as error:
        raise UserError(f"--out: cannot write {path}: {error.strerror or error}") from error


def curves(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by curve; a curve is named by what sets it apart from the others."""
    by_setting: dict[str, list[Run]] = {}
    for run in runs:
        compared = {k: v for k, v in run.config.items() if k not in _NOT_COMPARED}
        by_setting.setdefault(json.dumps(compared, sort_keys=True), []).append(run)
    groups: list[list[Run]] = []
    for group in by_setting.values():
        seeds = {run.config.get("seed") for run in group}
        groups += [group] if len(seeds) == len(group) else [[run] for run in group]
    named: dict[str, list[Run]] = {}
    for group in groups:
        label = _label(group, groups)
        if label in named:
            label = f"{label} ({group[0].name})".strip()
        named[label] = group
    return named


def _label(group: Sequence[Run], groups: Sequence[Sequence[Run]]) -> str:
    settings = [g[0].config for g in groups]
    own = group[0].config
    parts = [
        _setting(name, value)
        for name, value in own.items()
        if name not in _NOT_COMPARED and any(other.get(name) != value for other in settings)
    ]
    if len(group) > 1:
        parts.append(f"{len(group)} seeds")
    elif not parts and len(groups) > 1:
        parts.append(group[0].name)
    return ", ".join(parts)


def _setting(name: str, value: Any) -> str:
    if name == "stock":
        return "stock" if value else "fused"
    return str(value) if name in ("data", "model") else f"{name.replace('_', ' ')} {value}"


def _draw_steps(axes: Any, group: Sequence[Run], color: str, label: str) -> None:
    losses = [[row["loss"] for row in run.steps] for run in group]
    steps = [row["step"] for row in min(group, key=lambda run: len(run.steps)).steps]
    if not steps:
        return
    for run, loss in zip(group, losses, strict=True):
        axes.plot([row["step"] for row in run.steps], loss, color=color, alpha=0.2, linewidth=0.5)
    smooth = [running_mean(loss, max(1, len(loss) // _SMOOTHED_PART)) for loss in losses]
    _draw_mean(axes, steps, smooth, "-", color, label)


def _draw_mean(
    axes: Any,
    x: Sequence[float],
    columns: Sequence[Sequence[float]],
    style: str,
    color: str,
    label: str,
    **options: Any,
) -> None:
    """The mean of the columns over x; a band from their minimum to their maximum."""
    rows = list(zip(*(column[: len(x)] for column in columns), strict=True))
    mean = [sum(row) / len(row) for row in rows]
    axes.plot(x, mean, style, color=color, label=label or None, **options)
    if len(columns) > 1:
        low, high = [min(row) for row in rows], [max(row) for row in rows]
        axes.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean over the `width` values around each, over fewer at the ends."""
    before, after = width // 2, width - width // 2
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for i in range(len(values)):
        start, stop = max(0, i - before), min(len(values), i + after)
        means.append((sums[stop] - sums[start]) / (stop - start))
    return means
