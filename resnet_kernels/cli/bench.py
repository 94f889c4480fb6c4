"""`resnet-kernels bench`: what is measured, against what, and where the rows go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

PROVIDERS = ("fused", "eager", "eager_channels_last", "compile")
# Baselines of inference: torch.compile with constant weights, and engines outside PyTorch.
FREEZING, ENGINES = "compile_freezing", ("onnxruntime", "openvino")
OPTIONS = (
    click.option("--model", default="resnet50", help="Name in resnet_kernels.models."),
    click.option("--batch-size", type=click.IntRange(1), default=16),
    click.option("--size", type=click.IntRange(1), help="[default: 224; 32 for CIFAR models]"),
    click.option(
        "--num-classes", type=click.IntRange(1), help="[default: 1000; 10 for CIFAR models]"
    ),
    click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32"),
    click.option("--reps", type=click.IntRange(1), default=15),
    click.option("--warmup", type=click.IntRange(0), default=3),
    click.option(
        "--provider",
        "providers",
        multiple=True,
        type=click.Choice((*PROVIDERS, FREEZING, *ENGINES)),
        help="[default: fused, eager, eager_channels_last, compile; infer: compile_freezing and "
        "the engines that are installed, too]",
    ),
    click.option(
        "--compile/--no-compile", default=True, help="With torch.compile among the providers."
    ),
    click.option(
        "--peak/--no-peak", default=True, help="Peak memory, each in a process of its own."
    ),
    click.option(
        "--threads",
        type=click.IntRange(0),
        default=0,
        help="CPU threads; 0 leaves the choice to torch.",
    ),
    click.option("--device", help="cpu, cuda, cuda:N.  [default: cuda where there is one]"),
    click.option("--seed", type=int, default=0),
    click.option(
        "--csv", type=click.Path(path_type=Path, dir_okay=False), default="runs/bench.csv"
    ),
)


def _with_options(command: Command) -> Command:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.group()
def bench() -> None:
    """Measure whole networks against stock PyTorch: a correctness gate, then times and memory."""


@bench.command()
@_with_options
def step(**options: Any) -> int:
    """Training step: forward, loss, backward, SGD."""
    return _run(train=True, **options)


@bench.command()
@_with_options
def infer(**options: Any) -> int:
    """Inference: forward in eval mode without gradients."""
    return _run(train=False, **options)


def is_cifar(model: str) -> bool:
    """CIFAR networks by name: cifar_*, wrn*, and He et al.'s depths 6n+2."""
    return model.startswith(("cifar", "wrn")) or model in {
        f"resnet{n}" for n in (20, 32, 44, 56, 110)
    }


def _run(
    train: bool,
    model: str,
    batch_size: int,
    size: int | None,
    num_classes: int | None,
    dtype: str,
    reps: int,
    warmup: int,
    providers: tuple[str, ...],
    compile: bool,
    peak: bool,
    threads: int,
    device: str | None,
    seed: int,
    csv: Path,
) -> int:
    import torch
    from rich.console import Console

    from ..bench import engines
    from ..bench.step import run
    from ..bench.workload import Case
    from ..training.run import pick_device

    if threads:
        torch.set_num_threads(threads)
    small = is_cifar(model)
    case = Case(
        model=model,
        batch=batch_size,
        size=size or (32 if small else 224),
        dtype=dtype,
        train=train,
        device=pick_device(device),
        classes=num_classes or (10 if small else 1000),
        seed=seed,
    )
    if not providers:
        providers = PROVIDERS if train else (*PROVIDERS, FREEZING, *engines.installed())
    if train and not {*providers} <= {*PROVIDERS}:
        raise click.UsageError(f"{FREEZING}, {', '.join(ENGINES)}: for bench infer alone")
    without = () if compile else ("compile", FREEZING)
    chosen = [name for name in dict.fromkeys(providers) if name not in without]
    return run(case, chosen, reps, warmup, peak, csv, Console())
