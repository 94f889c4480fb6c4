"""Metrics of a run: one CSV row per epoch, and one per step in a file of its own."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
STEP_COLUMNS = ("step", "epoch", "lr", "loss")
FILE, STEPS_FILE, CONFIG = "metrics.csv", "steps.csv", "config.json"
Row = Mapping[str, float]


class StepLog:
    """Learning rate and loss of every step so far; a loss stays on its device until it is read.

    total: makes the loss of all processes out of the part of one.
    """

    def __init__(
        self, rows: Tensor | None = None, total: Callable[[Tensor], Tensor] = torch.clone
    ) -> None:
        self._rows = torch.zeros(0, 2, dtype=torch.float64) if rows is None else rows
        self._total = total
        self._new: list[tuple[float, Tensor]] = []

    def add(self, lr: float, loss: Tensor) -> None:
        self._new.append((lr, loss))

    def rows(self) -> Tensor:
        """[steps, 2] fp64 on the CPU: lr, loss."""
        if self._new:
            lrs, losses = zip(*self._new, strict=True)
            lr = torch.tensor(lrs, dtype=torch.float64)
            loss = self._total(torch.stack(losses).to("cpu", torch.float64))
            self._rows = torch.cat([self._rows, torch.stack([lr, loss], dim=1)])
            self._new = []
        return self._rows

    def first_not_finite(self) -> tuple[int, float] | None:
        """The first step, counted from 1, whose loss is infinite or NaN, and that loss."""
        losses = [*self._rows[:, 1].tolist(), *(float(loss) for _, loss in self._new)]
        return next(((i + 1, v) for i, v in enumerate(losses) if not math.isfinite(v)), None)


@dataclasses.dataclass(frozen=True)
class Run:
    """What is left of a run in its folder: settings, a row per epoch, a row per step."""

    name: str
    config: dict[str, Any]
    epochs: Sequence[Row]
    steps: Sequence[Row]


def step_rows(log: Tensor, steps_per_epoch: int) -> list[dict[str, float]]:
    """Rows of STEP_COLUMNS; steps and epochs count from 1."""
    return [
        {"step": i + 1, "epoch": i // steps_per_epoch + 1, "lr": lr, "loss": loss}
        for i, (lr, loss) in enumerate(log.tolist())
    ]


def write_metrics(epochs: Sequence[Row], steps: Sequence[Row], folder: Path) -> None:
    """Writes the whole history, so that the files are right after a resume too."""
    for name, columns, rows in ((FILE, COLUMNS, epochs), (STEPS_FILE, STEP_COLUMNS, steps)):
        with atomic_file(folder / name) as file:
            file.write(_table(columns, rows).encode())


def _table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _number(row[name]) for name in columns})
    return text.getvalue()


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def read_run(folder: Path) -> Run:
    """A run from its folder.

    Raises: UserError if the folder holds no readable metrics or no finished epoch.
    """
    epochs, steps = _read(folder / FILE, COLUMNS), _read(folder / STEPS_FILE, STEP_COLUMNS)
    if not epochs:
        raise UserError(f"{folder / FILE} has no finished epoch")
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"no {CONFIG} in {folder}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"cannot read {path}: expected settings by name")
    return Run(folder.name or str(folder), config, epochs, steps)


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, float]]:
    if not path.is_file():
        raise UserError(f"no {path.name} in {path.parent}")
    try:
        with path.open(newline="") as file:
            return [{name: float(row[name]) for name in columns} for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error!r}") from error
