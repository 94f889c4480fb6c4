"""The metrics of a run, one CSV row per epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from .checkpoint import atomic_file
from .errors import UserError

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "images_per_second",
    "seconds",
)
FILE = "metrics.csv"


def write_metrics(history: list[dict[str, float]], folder: Path) -> None:
    """Writes the whole history, so that the file is right after a resume too."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: f"{row[name]:.6g}" for name in COLUMNS})
    with atomic_file(folder / FILE) as file:
        file.write(text.getvalue().encode())


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run.

    Raises: UserError if the folder holds no readable metrics.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"no {FILE} in {folder}")
    try:
        with path.open(newline="") as file:
            rows = [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not rows:
        raise UserError(f"{path} has no finished epoch")
    return rows
