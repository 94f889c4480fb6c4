"""`resnet-kernels eval`, `predict`, `gradcam`, `export`: what to do with a trained network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
_RUN = click.option(
    "--run", type=PATH, help="Run directory or checkpoint.  [default: the newest under runs/]"
)
_DEVICE = click.option("--device", help="cpu, cuda, cuda:N.  [default: cuda where there is one]")
_THREADS = click.option(
    "--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: torch's choice."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
_IMAGES = click.argument("images", nargs=-1, required=True, type=PATH)


def _with_run(command: Command) -> Command:
    return _RUN(_DEVICE(_THREADS(command)))


def _load(run: Path | None, device: str | None, threads: int) -> Any:
    import torch

    from ..training.run import pick_device
    from ..training.trained import load_trained

    if threads:
        torch.set_num_threads(threads)
    return load_trained(run, pick_device(device))


@click.command("eval")
@_with_run
@click.option("--data", help="Other data with the same classes.  [default: the run's]")
@click.option("--data-dir", help="Where the CIFAR sets are.  [default: the run's]")
@click.option("--confusion", type=FILE, help="Picture of the confusion matrix to write.")
@_JSON
def evaluate(
    run: Path | None,
    device: str | None,
    threads: int,
    data: str | None,
    data_dir: str | None,
    confusion: Path | None,
    as_json: bool,
) -> None:
    """Loss, accuracy and the accuracy of each class on the test split."""
    from ..training.evaluate import draw_confusion
    from ..training.evaluate import evaluate as evaluated

    trained = _load(run, device, threads)
    result = evaluated(trained, data, data_dir)
    if confusion is not None:
        draw_confusion(result, confusion)
    values = result.as_dict()
    if as_json:
        click.echo(json.dumps(values))
        return
    rows = [(name, f"{share:.1%}") for name, share in values["classes"].items()]
    _table(("class", "accuracy"), rows)
    click.echo(
        f"{trained.path}: loss {result.loss:.4f}, accuracy {values['accuracy']:.1%} "
        f"({result.correct}/{result.seen}), top-5 {result.top5:.1%}"
    )
    if confusion is not None:
        click.echo(f"wrote {confusion}")


@click.command()
@_IMAGES
@_with_run
@click.option("--top-k", type=click.IntRange(1), default=3, help="Classes to name.")
@_JSON
def predict(
    images: tuple[Path, ...],
    run: Path | None,
    device: str | None,
    threads: int,
    top_k: int,
    as_json: bool,
) -> None:
    """Name the most probable classes of pictures."""
    from ..training.trained import probabilities

    trained = _load(run, device, threads)
    names = trained.info.classes
    best = probabilities(trained, images).topk(min(top_k, len(names)))
    found = [
        {
            "image": str(image),
            "classes": [
                {"class": names[index], "probability": share}
                for index, share in zip(indices, shares, strict=True)
            ],
        }
        for image, indices, shares in zip(
            images, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
    if as_json:
        click.echo(json.dumps(found))
        return
    header = ("image", *(f"{i + 1}." for i in range(best.indices.shape[1])))
    _table(header, [_row(entry) for entry in found])


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    parts = [f"{part['class']} {part['probability']:.1%}" for part in entry["classes"]]
    return (entry["image"], *parts)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns of equal width, also when it is not a terminal that reads them."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@click.command()
@_IMAGES
@_with_run
@click.option("--target", help="Class to look for.  [default: the predicted one]")
@click.option("--out", type=FILE, default="gradcam.png", show_default=True)
def gradcam(
    images: tuple[Path, ...],
    run: Path | None,
    device: str | None,
    threads: int,
    target: str | None,
    out: Path,
) -> None:
    """Draw which part of each picture speaks for its class (Grad-CAM)."""
    from ..training.gradcam import draw_heat_maps

    for line in draw_heat_maps(_load(run, device, threads), images, target, out):
        click.echo(line)
    click.echo(f"wrote {out}")


@click.command()
@_with_run
@click.option("--out", type=FILE, required=True, help="FILE.pt2 (torch.export) or FILE.onnx.")
@click.option("--stock", is_flag=True, help="Without our ops; .onnx always is.")
def export(run: Path | None, device: str | None, threads: int, out: Path, stock: bool) -> None:
    """Write a network for other programs, and check that it computes the same."""
    from ..training.export import export as exported

    trained = _load(run, device, threads)
    worst = exported(trained, out, stock)
    click.echo(f"wrote {out}: {out.stat().st_size:,} bytes, differs by {worst:.1e} at most")
