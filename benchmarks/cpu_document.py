"""`python -m benchmarks.cpu_document`: the tables and the picture of docs/cpu.md.

They say what three committed CSVs say: cpu_infer.csv and cpu_step.csv by `resnet-kernels bench`,
cpu_layers.csv by `python -m benchmarks ops`. Ratios are of rows of one run, the newest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from resnet_kernels.training.plots import save_figure

from .readme import STEP_CSV, Row, read, step_table
from .traffic import RESULTS, table, write_section

DOCUMENT = Path(__file__).parents[1] / "docs/cpu.md"
PICTURE = DOCUMENT.parent / "images/cpu_inference.png"
INFER_CSV, LAYERS_CSV = RESULTS / "cpu_infer.csv", RESULTS / "cpu_layers.csv"
NETWORK, LAYER = ("model", "batch", "size"), ("op", "layer")
# What a row was measured with and on.
RUN = ("date", "commit", "torch", "python", "device", "threads", "reps")
OURS = "fused"
NAMES = {
    OURS: OURS,
    "eager_channels_last": "eager channels_last",
    "eager": "eager NCHW",
    "compile": "torch.compile",
    "compile_freezing": "torch.compile, freezing",
    "onnxruntime": "onnxruntime",
    "openvino": "OpenVINO",
}
OPS = ("conv_fwd", "conv_dgrad", "conv_wgrad")
SGEMM, FMA = "peak_tflop_s", "peak_fma_tflop_s"
AIM_PERCENT = 75
NAMED = 3
Runs = dict[tuple[str, ...], dict[str, Row]]


def runs(rows: Iterable[Row], keys: Sequence[str]) -> Runs:
    """Rows by the keys' values, then by provider; of each, those of the newest run alone."""
    found: Runs = {}
    for row in rows:
        by = found.setdefault(tuple(row[key] for key in keys), {})
        if any(other[column] != row[column] for other in by.values() for column in RUN):
            by.clear()
        by[row["provider"]] = row
    return found


def times(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Median milliseconds by network and batch, then by provider."""
    return {
        f"{model}, {size}², batch {batch}": {p: float(row["p50_ms"]) for p, row in by.items()}
        for (model, batch, size), by in runs(rows, NETWORK).items()
    }


def inference_table(rows: list[Row]) -> str:
    """Medians of every provider, and ours over the best of the others."""
    lines = []
    for what, by in times(rows).items():
        best = min(time for name, time in by.items() if name != OURS)
        cells = (f"{by[name]:.1f}" if name in by else "" for name in NAMES)
        lines.append((what, *cells, f"{by[OURS] / best:.2f}"))
    return table(("model, ms", *NAMES.values(), "fused / best"), lines)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A distinct convolution in one direction: our row, and milliseconds of the faster eager."""

    ours: Row
    torch_ms: float

    @property
    def name(self) -> str:
        """With a word where ours is torch's own convolution, the declared fallback."""
        return self.ours["layer"] + (" (torch's)" if self.ours["fallback"] else "")

    @property
    def ms(self) -> float:
        return float(self.ours["p50_ms"])

    @property
    def count(self) -> int:
        return int(self.ours["count"])

    @property
    def gflop(self) -> float:
        """Of the direct convolution, whatever the algorithm; a multiply-add is two."""
        return 2 * int(self.ours["multiply_adds"]) / 1e9


def layers(rows: list[Row], op: str) -> list[Layer]:
    found = []
    for (name, _), by in runs(rows, LAYER).items():
        if name == op:
            others = [float(row["p50_ms"]) for p, row in by.items() if p != "cpu"]
            found.append(Layer(by["cpu"], min(others)))
    return found


def percent(found: Iterable[Layer], peak: str) -> float:
    """Of the rate that the run measured: all operations at that rate over all the time, which
    weights each layer's percentage by its time. A layer counts as often as the network has it."""
    found = list(found)
    needed = sum(layer.count * layer.gflop / float(layer.ours[peak]) for layer in found)
    return 100 * needed / sum(layer.count * layer.ms for layer in found)


def ratio(found: Iterable[Layer]) -> float:
    """Our time over torch's."""
    found = list(found)
    return sum(x.count * x.ms for x in found) / sum(x.count * x.torch_ms for x in found)


def _shares(found: list[Layer]) -> tuple[str, str, str]:
    return f"{percent(found, SGEMM):.1f}", f"{percent(found, FMA):.1f}", f"{ratio(found):.2f}"


def layer_table(rows: list[Row], op: str) -> str:
    """Each distinct convolution, the one furthest from sgemm's rate first."""
    lines = []
    for layer in from_worst(layers(rows, op)):
        rate = f"{1e3 * layer.gflop / layer.ms:.0f}"
        lines.append((layer.name, layer.count, f"{layer.ms:.2f}", rate, *_shares([layer])))
    headings = ("layer", "times", "ms", "GFLOP/s", "% of sgemm", "% of FMA peak", "ours / torch")
    return table(headings, lines)


def from_worst(found: list[Layer]) -> list[Layer]:
    return sorted(found, key=lambda layer: percent([layer], SGEMM))


def _rates(found: list[Layer], column: str) -> str:
    """The measured rates of the runs that these rows are of, GFLOP/s."""
    measured = sorted({round(1e3 * float(layer.ours[column])) for layer in found})
    return " to ".join(dict.fromkeys(map(str, (measured[0], measured[-1]))))


def share_table(rows: list[Row]) -> str:
    """Each op on all layers of the network together, and whether the aim is met."""
    by_op = {f"`{op}`": layers(rows, op) for op in OPS}
    by_op["all three"] = [layer for found in by_op.values() for layer in found]
    lines = []
    for op, found in by_op.items():
        ms = sum(layer.count * layer.ms for layer in found)
        rate = 1e3 * sum(layer.count * layer.gflop for layer in found) / ms
        peaks = (_rates(found, column) for column in (SGEMM, FMA))
        lines.append((op, f"{ms:.0f}", f"{rate:.0f}", *peaks, *_shares(found)))
    headings = ("op", "ms", "GFLOP/s", "sgemm GFLOP/s", "FMA peak GFLOP/s", "% of sgemm",
                "% of FMA peak", "ours / torch")  # fmt: skip
    reached = percent(by_op["all three"], SGEMM)
    verdict = "met" if reached >= AIM_PERCENT else "not met"
    aim = f"The aim, at least {AIM_PERCENT} % of sgemm's rate by time, is **{verdict}**"
    return f"{table(headings, lines)}\n\n{aim}: {reached:.1f} %."


def worst_list(rows: list[Row]) -> str:
    """Of each op the layers furthest from sgemm's rate, and all that torch does faster."""
    lines = []
    for op in OPS:
        found = from_worst(layers(rows, op))
        worst = (f"{x.name} ({percent([x], SGEMM):.0f} %)" for x in found[:NAMED])
        slower = (f"{x.name} ({ratio([x]):.2f})" for x in found if ratio([x]) > 1)
        lines.append(f"- `{op}`: {', '.join(worst)}. Slower than torch: "
                     f"{', '.join(slower) or 'none'}.")  # fmt: skip
    return "\n".join(lines)


def _versions(row: Row, by: Iterable[Row]) -> str:
    engines = {f"{r['provider']} {r['engine_version']}": 0 for r in by if r.get("engine_version")}
    return ", ".join((f"torch {row['torch']}", f"Python {row['python']}", *engines))


def machine_table(infer: list[Row], step: list[Row], ops: list[Row]) -> str:
    """Where, when and with what the rows in the tables were measured."""
    lines: dict[tuple[str, ...], None] = {}
    for what, rows, keys in (
        ("inference", infer, NETWORK), ("training step", step, NETWORK), ("layers", ops, LAYER),
    ):  # fmt: skip
        for by in runs(rows, keys).values():
            row = next(iter(by.values()))
            where = (row[c] for c in ("device", "threads", "date", "commit", "reps"))
            line = (what, *where, _versions(row, by.values()))
            lines[line] = None
    headings = ("rows", "processor, instruction set", "threads", "date", "commit", "repetitions",
                "versions")  # fmt: skip
    return table(headings, lines)


def draw(rows: list[Row], path: Path) -> None:
    """Time of every provider relative to ours, a group of bars for each network and batch."""
    from matplotlib.figure import Figure

    found = times(rows)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes: Any = figure.subplots()
    width = 0.8 / len(NAMES)
    for number, (name, label) in enumerate(NAMES.items()):
        where = [i + number * width for i, by in enumerate(found.values()) if name in by]
        heights = [by[name] / by[OURS] for by in found.values() if name in by]
        axes.bar(where, heights, width, label=label)
    axes.axhline(1, color="black", lw=0.8)
    axes.set_xticks([i + width * (len(NAMES) - 1) / 2 for i in range(len(found))], list(found))
    last = rows[-1]
    axes.set(
        ylabel="time / ours",
        title=f"inference, {last['dtype']}, {last['device']}, {last['threads']} threads, "
        f"torch {last['torch']}",
    )
    figure.legend(loc="outside lower center", ncols=4)
    save_figure(figure, path)


def sections() -> dict[str, str]:
    infer, step, ops = read(INFER_CSV), read(STEP_CSV), read(LAYERS_CSV)
    return {
        "machine": machine_table(infer, step, ops),
        "inference": inference_table(infer),
        "step": step_table(step),
        "share": share_table(ops),
        "worst": worst_list(ops),
        **{op: layer_table(ops, op) for op in OPS},
    }


def write(path: Path = DOCUMENT) -> None:
    """Fills the document. Raises: SystemExit if it lacks the markers."""
    for name, text in sections().items():
        write_section(name, text, path)


if __name__ == "__main__":
    write()
    draw(read(INFER_CSV), PICTURE)
