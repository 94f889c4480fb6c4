"""Checkpoints: written to a temporary file, synced, moved into place; loaded as data only."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .errors import UserError, first_line

# What torch.load raises for damaged files, beside UnpicklingError.
UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError)
NOT_DATA = "it is damaged, or holds more than tensors (code in a file is never run)"
FORMAT = "resnet_kernels.checkpoint/3"


@dataclasses.dataclass
class Checkpoint:
    """The whole state of a run between two steps.

    `step` counts the finished steps of `epoch`; `sums` are the epoch's loss, correct and seen so
    far; `history` has a row per epoch and `log` [steps, 2] one per step; `data` describes the data
    set (classes, normalisation), so that the weights can be used without it; `ema` has the averaged
    weights if the run has any; `rng` has the random states of each process.
    """

    config: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: list[dict[str, Tensor]]
    epoch: int
    step: int
    sums: Tensor
    history: list[dict[str, float]]
    log: Tensor


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole, and synced, or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of writes to `path` that were killed."""
    for file in path.parent.glob(f".{path.name}.*.tmp"):
        file.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once the folder is synced; not every platform can open one.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_checkpoint(
    checkpoint: Checkpoint, path: Path, write: Callable[[Any, IO[bytes]], None] = torch.save
) -> None:
    """Replaces `path` by this checkpoint; on any failure the old file stays."""
    content = {
        field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)
    }
    with atomic_file(path) as file:
        try:
            write({"format": FORMAT, **content}, file)
        except RuntimeError as error:
            # torch.save's report of a full disk: what the system said is behind it.
            cause = error.__context__
            reason = cause if isinstance(cause, OSError) else error
            raise OSError(first_line(reason)) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU; no code of the file is run.

    Raises: UserError if the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        reason = NOT_DATA if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version's `resnet-kernels train`")
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if content.keys() != names:
        raise UserError(
            f"the checkpoint {path} lacks or has unknown parts: {sorted(content.keys() ^ names)}"
        )
    return Checkpoint(**content)
