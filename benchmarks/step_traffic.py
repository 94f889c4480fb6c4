"""Counts what a training step of ResNet-50 moves in fp16, block by block: emulator counters.

Each distinct block runs forward and backward at 224 pixels, batch 1, with one fusion after another
(step_blocks.LEVELS), and counts as often as the network has it. Batch 64 is extrapolated: block ops
from batches 1 and 2, as every tensor is affine in the batch but conv_wgrad's partial sums, which
follow from the shape (wgrad_splits) and are put in for an H100; the other levels by their distance
from block ops, which is activations alone. Eager and the floor are modelled (bytes_model). Not
counted: average pooling, classifier, loss, optimizer. Fills docs/traffic.md and appends to
benchmarks/results/step_traffic.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from python_tests.shapes import ConvShape
from resnet_kernels import fuse
from resnet_kernels.bench import memory, report, workload

from . import bytes_model, traffic, wgrad_splits
from .bytes_model import Block, Conv, Network
from .step_blocks import LEVELS, RESNET50_BLOCKS, STEM, BlockShape, BlockTensors, stem_step, step
from .traffic import moved

BATCH = 64
ELEMENT = 2


class Part(NamedTuple):
    """A block or the stem: its layers, how often it occurs, a step of it at a batch and a level."""

    name: str
    layers: tuple[ConvShape, ...]
    times: int
    run: Callable[[int, int], None]
    network: Callable[[int], Network]


def conv_of(shape: ConvShape) -> Conv:
    n, k, p, q = shape.y_size
    pointwise = (shape.r, shape.s, shape.padding) == (1, 1, (0, 0))
    filters = k * shape.c * shape.r * shape.s
    return Conv(n * shape.c * shape.h * shape.w, n * k * p * q, filters, pointwise)


def block_of(block: BlockShape) -> Block:
    down = conv_of(block.downsample) if block.downsample else None
    return Block(tuple(map(conv_of, block.convs)), down)


def parts() -> list[Part]:
    nothing = Conv(0, 0, 0)

    def stem_network(n: int) -> Network:
        conv = conv_of(STEM.at(n))
        return Network(conv, conv.y // 4, ())

    found = [Part("stem", (STEM,), 1, lambda n, level: stem_step(STEM.at(n), level), stem_network)]
    for block in RESNET50_BLOCKS:

        def run(n: int, level: int, block: Any = block) -> None:
            at = block.at(n)
            step(at, BlockTensors.of(at), level)

        def network(n: int, block: Any = block) -> Network:
            return Network(nothing, 0, (block_of(block.at(n)),))

        found.append(Part(block.name, block.layers, block.times, run, network))
    return found


def partials(part: Part, n: int, multiprocessors: int) -> int:
    return sum(wgrad_splits.partial_bytes(s.at(n), multiprocessors) for s in part.layers)


def extrapolated(part: Part, one: int, two: int) -> int:
    """Bytes at BATCH on an H100 from those at batch 1 and 2 on the emulated device."""
    here = wgrad_splits.EMULATED
    first = one - partials(part, 1, here)
    slope = two - partials(part, 2, here) - first
    return first + (BATCH - 1) * slope + partials(part, BATCH, wgrad_splits.H100)


def measure(part: Part) -> list[dict[str, Any]]:
    """A row for each level."""
    counts = [moved(lambda level=level: part.run(1, level)) for level in range(len(LEVELS))]  # type: ignore[misc]
    last = counts[-1].bytes
    block_ops = extrapolated(part, last, moved(lambda: part.run(2, len(LEVELS) - 1)).bytes)
    network = part.network(BATCH)
    return [
        {
            "part": part.name,
            "count": part.times,
            "level": level,
            "bytes_batch1": count.bytes,
            "sectors_batch1": count.sectors,
            "bytes_batch64": block_ops + BATCH * (count.bytes - last),
            "partial_bytes_batch64": partials(part, BATCH, wgrad_splits.H100),
            "eager_bytes_batch64": bytes_model.eager(network, ELEMENT),
            "model_bytes_batch64": bytes_model.block_ops(network, ELEMENT),
        }
        for level, count in zip(LEVELS, counts, strict=True)
    ]


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3f}"


def level_table(rows: list[dict[str, Any]], floor: int) -> str:
    """The network's sum at each level, beside eager and the floor."""
    sums = {level: dict.fromkeys(SUMMED, 0) for level in LEVELS}
    for row in rows:
        for key in SUMMED:
            sums[row["level"]][key] += row["count"] * row[key]
    eager = sums[LEVELS[0]]["eager_bytes_batch64"]
    lines: list[tuple[object, ...]] = []
    for level, total in sums.items():
        at64, partial = total["bytes_batch64"], total["partial_bytes_batch64"]
        lines.append((
            level, gigabytes(total["bytes_batch1"]), f"{total['sectors_batch1'] / 1e6:.1f}",
            gigabytes(at64), f"{at64 / eager:.3f}", f"{(at64 - partial) / eager:.3f}",
        ))  # fmt: skip
    model = sums[LEVELS[0]]["model_bytes_batch64"]
    for name, count in (("block ops", model), ("floor", floor), ("eager", eager)):
        lines.append((f"{name} (model)", "", "", gigabytes(count), f"{count / eager:.3f}", ""))
    headings = ("level", "GB, batch 1", "million sectors, batch 1", "GB, batch 64", "of eager",
                "of eager, without wgrad's partial sums")  # fmt: skip
    return traffic.table(headings, lines)


SUMMED = (
    "bytes_batch1", "sectors_batch1", "bytes_batch64", "partial_bytes_batch64",
    "eager_bytes_batch64", "model_bytes_batch64",
)  # fmt: skip


def part_table(rows: list[dict[str, Any]]) -> str:
    """Each block: unfused and block ops at batch 64, beside eager."""
    lines = []
    for first in (row for row in rows if row["level"] == LEVELS[0]):
        last = next(r for r in rows if r["part"] == first["part"] and r["level"] == LEVELS[-1])
        eager = first["eager_bytes_batch64"]
        values = [r["bytes_batch64"] for r in (first, last)]
        lines.append((
            first["part"], first["count"], gigabytes(eager), *map(gigabytes, values),
            *(f"{v / eager:.3f}" for v in values),
        ))  # fmt: skip
    headings = ("part", "times", "eager GB (model)", "unfused GB", "block ops GB",
                "unfused / eager", "block ops / eager")  # fmt: skip
    return traffic.table(headings, lines)


def saved_table() -> str:
    """Bytes that autograd keeps, per image: the difference of batch 2 and 1 (bench.memory)."""

    def per_image(provider: str, recompute: str | None = None) -> int:
        sizes = []
        for batch in (1, 2):
            work = workload.Workload(provider, workload.Case("resnet50", batch, 224))
            if recompute:
                fuse(work.module, recompute=recompute)
            sizes.append(memory.saved_bytes(work))
        return sizes[1] - sizes[0]

    eager = per_image("eager_channels_last")
    rows = [
        ("eager", eager),
        ("block ops", per_image("fused")),
        ('block ops, recompute="stage"', per_image("eager_channels_last", "stage")),
    ]
    return traffic.table(
        ("", "MB an image, fp32", "of eager"),
        [(name, traffic.megabytes(count), f"{count / eager:.3f}") for name, count in rows],
    )


def main() -> None:
    rows: list[dict[str, Any]] = []
    for part in parts():
        rows += measure(part)
        print(*rows[-len(LEVELS) :], sep="\n", file=sys.stderr, flush=True)
    where = report.environment(torch.device("cpu")) | {"device": "emulated sm_80"}
    report.append_csv(traffic.RESULTS / "step_traffic.csv", [{**where, **row} for row in rows])
    from resnet_kernels import models

    net = bytes_model.network(models.create("resnet50", fused=False), (BATCH, 3, 224, 224))
    floor = bytes_model.ours(net, ELEMENT, bytes_model.ACROSS)
    traffic.write_section("step_levels", level_table(rows, floor))
    traffic.write_section("step_parts", part_table(rows))
    traffic.write_section("saved", saved_table())


if __name__ == "__main__":
    main()
