"""Scalars of a run for TensorBoard, written when the checkpoint is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .errors import UserError
from .loop import Trainer

FOLDER = "tensorboard"


class Board:
    """Writes what has been added to a run's history since the last time; nothing if it is off."""

    def __init__(self, writer: Any, steps: int, epochs: int) -> None:
        self._writer, self._steps, self._epochs = writer, steps, epochs

    def write(self, saved: Checkpoint) -> None:
        if self._writer is None:
            return
        for step, (lr, loss) in enumerate(saved.log[self._steps :].tolist(), self._steps + 1):
            self._writer.add_scalar("step/loss", loss, step)
            self._writer.add_scalar("step/lr", lr, step)
        for row in saved.history[self._epochs :]:
            for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
                self._writer.add_scalar(f"epoch/{name}", row[name], int(row["step"]))
        self._steps, self._epochs = len(saved.log), len(saved.history)
        self._writer.flush()


@contextlib.contextmanager
def scalar_board(folder: Path, wanted: bool, trainer: Trainer) -> Iterator[Board]:
    """The board of a run; a resumed run goes on where its checkpoint was taken.

    Raises: UserError if it is wanted and tensorboard is not installed.
    """
    writer = None
    done = len(trainer.log.rows()), len(trainer.history)
    if wanted:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("--tensorboard needs tensorboard: pip install tensorboard") from error
        writer = SummaryWriter(str(folder / FOLDER), purge_step=done[0] + 1)
    try:
        yield Board(writer, *done)
    finally:
        if writer is not None:
            writer.close()
