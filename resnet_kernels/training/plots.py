"""Loss and accuracy curves of one run, or of several in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .checkpoint import atomic_file
from .errors import UserError

Rows = Sequence[Mapping[str, float]]


def plot_runs(runs: Mapping[str, Rows], path: Path) -> None:
    """Draws loss and accuracy over epochs; solid lines are the test set, dashed ones training."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            epochs = [row["epoch"] for row in rows]
            for split, style in (("train", "--"), ("test", "-")):
                values = [row[f"{split}_{quantity}"] for row in rows]
                label = f"{name} {split}" if name else split
                axes.plot(epochs, values, style, color=f"C{number}", marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=120)
