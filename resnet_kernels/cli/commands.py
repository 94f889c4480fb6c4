"""The subcommands. Each imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .bench import bench
from .use import evaluate, export, gradcam, predict

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
ANY_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="resnet_kernels", prog_name="resnet-kernels")
def cli() -> None:
    """Train, measure and inspect ResNets on fused conv, batch norm and activation kernels."""


for command in (bench, evaluate, predict, gradcam, export):
    cli.add_command(command)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@cli.command()
@click.option(
    "--data",
    help="digits (default), cifar10, cifar100, or a folder: train/<class>/ and test/<class>/.",
)
@click.option(
    "--data-dir",
    help="Where the CIFAR sets are, or are downloaded to.  [default: data]",
)
@click.option("--model", help="Name in resnet_kernels.models; the default depends on the data.")
@click.option(
    "--stock", is_flag=True, default=None, help="Stock torch modules instead of fused ones."
)
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--lr", type=float, help="Peak learning rate: linear warm-up, then cosine to zero.")
@click.option("--momentum", type=float, help="Nesterov momentum.  [default: 0.9]")
@click.option("--weight-decay", type=float, help="Not applied to batch norm and biases.")
@click.option("--label-smoothing", type=float)
@click.option("--warmup-epochs", type=float)
@click.option(
    "--amp", type=click.Choice(["none", "bf16", "fp16"]), help="Mixed precision.  [default: none]"
)
@click.option("--size", type=int, help="Crop size for folders of large pictures.  [default: 224]")
@click.option("--init", help="Weights to start from: a checkpoint, a state_dict or .safetensors.")
@click.option(
    "--num-classes",
    type=click.IntRange(1),
    help="Must be the data's number of classes: a check, as the head is made for the data.",
)
@click.option(
    "--freeze",
    type=click.Choice(["none", "bn", "backbone"]),
    help="Layers that do not learn.  [default: none]",
)
@click.option("--head-lr", type=float, help="Peak learning rate of the head.  [default: --lr]")
@click.option("--ema", type=float, help="Decay of averaged weights, such as 0.999.  [default: off]")
@click.option(
    "--recompute",
    type=click.Choice(["none", "stage"]),
    help="Rebuild block outputs in backward instead of keeping them.  [default: none]",
)
@click.option(
    "--sync-bn/--no-sync-bn",
    default=None,
    help="With several processes: batch statistics over all of them.  [default: sync-bn]",
)
@click.option("--compile", is_flag=True, default=None, help="torch.compile the training step.")
@click.option("--cuda-graph", is_flag=True, default=None, help="Replay a step as one CUDA graph.")
@click.option(
    "--checkpoint-steps", type=int, help="Save each so many steps too.  [default: each epoch alone]"
)
@click.option("--tensorboard", is_flag=True, default=None, help="Scalars to RUN/tensorboard.")
@click.option("--seed", type=int, help="Decides everything random.  [default: 0]")
@click.option("--workers", type=int, help="Processes that decode large pictures.")
@click.option(
    "--threads", type=int, help="CPU threads; 0 leaves the choice to torch.  [default: 0]"
)
@click.option("--device", help="cpu, cuda, cuda:N.  [default: cuda where there is one]")
@click.option("--out", type=FOLDER, help="Run directory.  [default: the next free one under runs/]")
@click.option(
    "--resume", type=ANY_PATH, help="A checkpoint or run directory to continue, to the same bits."
)
def train(out: Path | None, resume: Path | None, **options: Any) -> int:
    """Train a ResNet and write checkpoint, metrics and curves to a run directory."""
    from rich.console import Console

    from ..training.run import train as run

    return run(_given(options), out, resume, Console())


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FILE, default="curves.png", help="Picture to write.")
def plot(runs: tuple[Path, ...], out: Path) -> None:
    """Draw the curves of several runs in one picture; runs that differ in their seed alone are one
    curve with a band."""
    from ..training.metrics import read_run
    from ..training.plots import plot_runs

    plot_runs([read_run(run) for run in runs], out)
    click.echo(f"wrote {out}")


@cli.command()
def info() -> None:
    """Print versions, devices and which kernel libraries this installation has."""
    from .. import info as installation

    click.echo(installation.render(installation.collect()))


@cli.command()
@click.option("--model", help="Name in resnet_kernels.models; or --run.")
@click.option("--run", type=ANY_PATH, help="Run directory or checkpoint to take the model from.")
@click.option("--num-classes", type=click.IntRange(1), default=1000)
@click.option("--in-channels", type=click.IntRange(1), default=3)
@click.option(
    "--input-size", type=click.IntRange(1), nargs=4, help="N C H W; CUDA kernels go by it."
)
def explain(
    model: str | None,
    run: Path | None,
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, ...] | None,
) -> None:
    """Show, for each layer of a model, the path it takes and why."""
    from .. import explain as explained
    from ..training.network import create_network
    from ..training.trained import load_trained

    if (model is None) == (run is None):
        raise click.UsageError("expected --model or --run")
    if model is not None:
        network = create_network(model, num_classes, in_channels, fused=True)
    else:
        network = load_trained(run, "cpu").model
    click.echo(explained(network, input_size or None))
