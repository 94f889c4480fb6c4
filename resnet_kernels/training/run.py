"""One training run from options to a run directory: checkpoint, metrics, curves, op counts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .board import scalar_board
from .checkpoint import atomic_file, load_checkpoint, remove_leftovers, save_checkpoint
from .config import TrainConfig, new_config, resumed_config
from .counts import OpCounts, count_step
from .data import kind_of, open_data
from .errors import UserError, first_line
from .interrupt import Interrupted, signals_as_flag
from .loop import Trainer
from .metrics import CONFIG, FILE, STEPS_FILE, Run, step_rows, write_metrics
from .network import training_network
from .plots import plot_runs
from .progress import ProgressWatcher
from .ranks import Ranks, joined

CHECKPOINT, CURVES, COUNTS = "last.pt", "curves.png", "counts.json"


def pick_device(name: str | None) -> str:
    """The named device, or CUDA where there is one, or the CPU.

    Raises: UserError for a device that torch does not know or that is not there.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device: expected cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device: {name} is not there (torch sees {torch.cuda.device_count()} GPUs)"
        )
    return name


def train(given: dict[str, Any], out: Path | None, resume: Path | None, console: Console) -> int:
    """Runs `resnet-kernels train` with the options that were given; returns the exit code.

    Under torchrun every process calls this; the first one prints and writes.

    Raises: UserError before anything is written, or when the loss diverges.
    """
    given = dict(given)
    classes = given.pop("num_classes", None)
    saved = None
    if resume is not None:
        path = resume / CHECKPOINT if resume.is_dir() else resume
        saved = load_checkpoint(path)
        config = resumed_config(saved.config, given)
        config = dataclasses.replace(config, device=pick_device(config.device))
        out = out or path.parent
    else:
        given["device"] = pick_device(given.get("device"))
        kind = kind_of(given.get("data", "digits"), given.get("size", 0))
        config = new_config(kind, given)
    if config.threads:
        torch.set_num_threads(config.threads)
    with joined(config.device) as ranks:
        console.quiet = not ranks.first
        if ranks.world > 1 and config.device.startswith("cuda"):
            config = dataclasses.replace(config, device=f"cuda:{ranks.local}")
            torch.cuda.set_device(ranks.local)
        trainer = _trainer(config, classes, ranks, console)
        if saved is not None:
            trainer.restore(saved)
        resumed = resume is not None and out == path.parent
        folder = _run_folder(out, config, resumed) if ranks.first else Path()
        (folder, *_) = ranks.gather(folder)
        return _train(trainer, folder, console, resumed)


def _trainer(config: TrainConfig, classes: int | None, ranks: Ranks, console: Console) -> Trainer:
    for option in ("compile", "cuda_graph"):
        if getattr(config, option) and ranks.world > 1:
            name = option.replace("_", "-")
            raise UserError(f"--{name}: expected one process, got {ranks.world}")
    _seed(config.seed)
    with ranks.one_after_first(), console.status(f"reading {config.data} ..."):
        data = open_data(config)
    info = data.info
    if classes not in (None, len(info.classes)):
        raise UserError(
            f"--num-classes: {info.name} has {len(info.classes)} classes, got {classes}"
        )
    model = training_network(config, info.classes, info.channels, ranks)
    return Trainer(config, data, model, ranks)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)


def _run_folder(out: Path | None, config: TrainConfig, resumed: bool) -> Path:
    if resumed and out is not None:
        return out
    if out is None:
        stem = f"{Path(config.data).name}-{config.model}{'-stock' if config.stock else ''}"
        names = [Path("runs", stem), *(Path("runs", f"{stem}-{n}") for n in range(2, 10000))]
        out = next(path for path in names if not path.exists())
    elif (out / CHECKPOINT).exists():
        raise UserError(
            f"--out: {out} already holds a run; choose another folder, or --resume {out}"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make the folder {out}: {error.strerror}") from error
    return out


def _train(trainer: Trainer, folder: Path, console: Console, resumed: bool) -> int:
    config, checkpoint, first = trainer.config, folder / CHECKPOINT, trainer.ranks.first

    def save() -> None:
        saved = trainer.checkpoint()
        if first:
            with _writing(folder):
                save_checkpoint(saved, checkpoint)
                write_metrics(saved.history, step_rows(saved.log, trainer.steps), folder)
                board.write(saved)

    with _writing(folder), scalar_board(folder, config.tensorboard and first, trainer) as board:
        if first:
            _begin(trainer, folder, resumed)
        _say(console, _headline(trainer, folder))
        done = trainer.epoch * trainer.steps + trainer.step
        try:
            with (
                signals_as_flag() as stop,
                ProgressWatcher(console, config.epochs, trainer.steps, done) as watcher,
            ):
                trainer.fit(watcher, save, stop)
        except Interrupted as interrupted:
            save()
            after = f"in epoch {trainer.epoch + 1} after {trainer.step} steps"
            _say(console, f"interrupted by {interrupted} {after}")
            _say(console, f"continue with: resnet-kernels train --resume {checkpoint}")
            return 128 + interrupted.number
        _finish(trainer, folder, console)
    return 0


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {first_line(error)}") from error


def _begin(trainer: Trainer, folder: Path, resumed: bool) -> None:
    """Settings, and what a killed process may have left: half a file, or tables of an older step.

    The tables are written after the checkpoint, so it alone says how far the run is.
    """
    for name in (CHECKPOINT, CONFIG, FILE, STEPS_FILE, CURVES, COUNTS):
        remove_leftovers(folder / name)
    with atomic_file(folder / CONFIG) as file:
        file.write((json.dumps(dataclasses.asdict(trainer.config), indent=2) + "\n").encode())
    if resumed:
        write_metrics(trainer.history, step_rows(trainer.log.rows(), trainer.steps), folder)


def _headline(trainer: Trainer, folder: Path) -> str:
    config, info = trainer.config, trainer.data.info
    parameters = sum(p.numel() for p in trainer.model.parameters())
    kind = "stock torch modules" if config.stock else "fused"
    height, width = info.size
    world = trainer.ranks.world
    many = f", {world} processes" if world > 1 else ""
    return (
        f"{config.model} ({kind}, {parameters:,} parameters) on {info.name}: {info.train_images:,} "
        f"training and {info.test_images:,} test pictures of {width}x{height}, "
        f"{len(info.classes)} classes; {config.epochs} epochs of {trainer.steps} steps on "
        f"{config.device}{many} -> {folder}"
    )


def _finish(trainer: Trainer, folder: Path, console: Console) -> None:
    steps = step_rows(trainer.log.rows(), trainer.steps)
    if trainer.ranks.first:
        run = Run(folder.name, dataclasses.asdict(trainer.config), trainer.history, steps)
        plot_runs([run], folder / CURVES)
    if trainer.ranks.world == 1:  # SyncBN of one process's step would wait for the others
        counts = count_step(trainer.model, trainer.step_loss)
        counts.write(folder / COUNTS)
        _say(console, describe_counts(counts))
    written = [CHECKPOINT, FILE, STEPS_FILE, CURVES, *[COUNTS] * (trainer.ranks.world == 1)]
    _say(console, f"wrote {', '.join(written)} to {folder}")
    loss, correct, seen = trainer.evaluate()
    accuracy = 100 * correct / seen
    _say(console, f"Test set: average loss {loss:.4f}, accuracy {accuracy:.1f}% ({correct}/{seen})")


def describe_counts(counts: OpCounts) -> str:
    """Two lines: our ops in one training step, and what ran as plain torch."""
    ops = ", ".join(f"{name} {calls}" for name, calls in counts.per_step.items()) or "none"
    declared = ", ".join(f"{name} {calls}" for name, calls in counts.declared.items()) or "none"
    undeclared = ", ".join(f"{name} {calls}" for name, calls in counts.undeclared.items()) or "none"
    return (
        f"resnet_kernels ops in one training step: {ops}\n"
        f"fallbacks: torch's convolution (by design): {declared}; any other: {undeclared}"
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
