"""One training run from options to a run directory: checkpoint, metrics, curves, op counts."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .checkpoint import atomic_file, load_checkpoint, save_checkpoint
from .config import TrainConfig, new_config, resumed_config
from .counts import OpCounts, count_step
from .data import kind_of, open_data
from .errors import UserError
from .loop import Interrupted, Trainer, ctrl_c_as_flag
from .metrics import CONFIG, FILE, STEPS_FILE, Run, step_rows, write_metrics
from .network import create_network
from .plots import plot_runs
from .progress import ProgressWatcher

CHECKPOINT, CURVES, COUNTS = "last.pt", "curves.png", "counts.json"
INTERRUPTED = 130  # the shell's 128 + SIGINT


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

    Raises: UserError before anything is written, or when the loss diverges.
    """
    given = dict(given)
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
    _seed(config.seed)
    with console.status(f"reading {config.data} ..."):
        data = open_data(config)
    info = data.info
    model = create_network(config.model, len(info.classes), info.channels, not config.stock)
    trainer = Trainer(config, data, model)
    if saved is not None:
        trainer.restore(saved)
    folder = _run_folder(out, config, resumed=resume is not None and out == path.parent)
    return _train(trainer, folder, console)


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


def _train(trainer: Trainer, folder: Path, console: Console) -> int:
    config, checkpoint = trainer.config, folder / CHECKPOINT
    with atomic_file(folder / CONFIG) as file:
        file.write((json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())
    _say(console, _headline(trainer, folder))

    def save() -> None:
        try:
            saved = trainer.checkpoint()
            save_checkpoint(saved, checkpoint)
            write_metrics(saved.history, step_rows(saved.log, trainer.steps), folder)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot write to {folder}: {reason}") from error

    done = trainer.epoch * trainer.steps + trainer.step
    try:
        with (
            ctrl_c_as_flag() as stop,
            ProgressWatcher(console, config.epochs, trainer.steps, done) as watcher,
        ):
            trainer.fit(watcher, save, stop)
    except Interrupted:
        save()
        _say(console, f"interrupted in epoch {trainer.epoch + 1} after {trainer.step} steps")
        _say(console, f"continue with: resnet-kernels train --resume {checkpoint}")
        return INTERRUPTED
    _finish(trainer, folder, console)
    return 0


def _headline(trainer: Trainer, folder: Path) -> str:
    config, info = trainer.config, trainer.data.info
    parameters = sum(p.numel() for p in trainer.model.parameters())
    kind = "stock torch modules" if config.stock else "fused"
    height, width = info.size
    return (
        f"{config.model} ({kind}, {parameters:,} parameters) on {info.name}: {info.train_images:,} "
        f"training and {info.test_images:,} test pictures of {width}x{height}, "
        f"{len(info.classes)} classes; {config.epochs} epochs of {trainer.steps} steps on "
        f"{config.device} -> {folder}"
    )


def _finish(trainer: Trainer, folder: Path, console: Console) -> None:
    steps = step_rows(trainer.log.rows(), trainer.steps)
    run = Run(folder.name, dataclasses.asdict(trainer.config), trainer.history, steps)
    plot_runs([run], folder / CURVES)
    counts = count_step(trainer.model, trainer.step_loss)
    counts.write(folder / COUNTS)
    _say(console, describe_counts(counts))
    _say(console, f"wrote {CHECKPOINT}, {FILE}, {STEPS_FILE}, {CURVES}, {COUNTS} to {folder}")
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
