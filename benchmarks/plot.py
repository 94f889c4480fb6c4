"""`python -m benchmarks plot`: a roofline of every layer, and each op against stock PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnet_kernels.training.plots import save_figure

from .readme import Row, newest, op_sums, read

__all__ = ["draw", "read"]

OURS = ("cuda", "triton", "cpu")


def _roofline(axes: Any, rows: list[Row]) -> None:
    """Achieved GFLOP/s over the op's need of multiply-adds a byte, under the measured roof."""
    points = [r for r in newest(rows, "op", "layer", "batch", "dtype", "provider").values()
              if int(r["multiply_adds"])]  # fmt: skip
    for number, provider in enumerate(dict.fromkeys(r["provider"] for r in points)):
        own = [r for r in points if r["provider"] == provider]
        x = [2 * int(r["multiply_adds"]) / int(r["bytes_needed"]) for r in own]
        y = [2 * int(r["multiply_adds"]) / float(r["p50_ms"]) / 1e6 for r in own]
        axes.scatter(x, y, s=9, label=provider, color=f"C{number}", alpha=0.7)
    if points:
        gb_s = float(points[0]["peak_gb_s"])
        flat = 1e3 * float(points[0]["peak_tflop_s"])
        ends = [min(flat / gb_s, 1) / 2, flat / gb_s, 4e3]
        axes.plot(ends, [min(gb_s * x, flat) for x in ends], color="black", lw=1)
        axes.legend()
    axes.set(
        xscale="log", yscale="log", xlabel="FLOP the op needs a byte", ylabel="GFLOP/s",
        title="convolutions under the measured roof (copy, matrix product)",
    )  # fmt: skip


def _ratios(axes: Any, rows: list[Row]) -> None:
    """Time over the whole layer list, relative to eager channels_last."""
    sums = op_sums(rows)
    ops = [op for op, times in sums.items() if "eager_channels_last" in times]
    names = dict.fromkeys(r["provider"] for r in rows)
    height = 0.8 / max(len(names), 1)
    for number, provider in enumerate(names):
        where = [i + number * height for i, op in enumerate(ops) if provider in sums[op]]
        base = [sums[op]["eager_channels_last"] for op in ops if provider in sums[op]]
        times = [sums[op][provider] for op in ops if provider in sums[op]]
        ratios = [a / b for a, b in zip(times, base, strict=True)]
        axes.barh(where, ratios, height, label=provider, color=f"C{number}")
    axes.axvline(1, color="black", lw=0.8)
    axes.set_yticks([i + 0.4 for i in range(len(ops))], ops)
    axes.invert_yaxis()
    axes.set_xlabel("time / eager channels_last, all layers")
    axes.legend()


def draw(rows: list[Row], path: Path) -> None:
    """Both pictures of the rows of one device, batch and dtype.

    Raises: UserError where matplotlib is missing or the file cannot be written; SystemExit if there
    are no rows.
    """
    if not rows:
        raise SystemExit("plot: the CSV has no rows")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7), layout="constrained")
    left, right = figure.subplots(1, 2)
    _roofline(left, rows)
    _ratios(right, rows)
    first = rows[-1]
    figure.suptitle(
        f"{first['device']}, {first['threads']} threads, batch {first['batch']}, {first['dtype']}, "
        f"{first['cache']} caches, torch {first['torch']}, commit {first['commit']}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
