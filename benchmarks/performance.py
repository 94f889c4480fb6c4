"""How fast ResNet-50 could train on an A100 and an H100: bytes, multiply-adds, datasheet peaks.

A model: each kernel takes as long as its bytes at DRAM's full rate or its products at the tensor
cores' full rate, whichever is longer, and kernels follow each other without gaps. No kernel reaches
that. Fills docs/performance.md; nothing here is measured on a GPU.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from python_tests.shapes import RESNET50

from . import bytes_model, readme, traffic
from .datasheet import A100, H100, Datasheet
from .step_blocks import LEVELS
from .step_traffic import BATCH, ELEMENT

DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"
GPUS = (A100, H100)


class Chain(NamedTuple):
    """A way to run a training step: bytes an image, and where they come from."""

    name: str
    source: str
    bytes: float


class Published(NamedTuple):
    """Images a second of one GPU."""

    what: str
    gpu: Datasheet
    images: tuple[float, ...]


PUBLISHED = (
    Published("DeepLearningExamples, PyTorch, mixed precision", A100, (2470,)),
    Published("DeepLearningExamples, MXNet with fused batch norm", A100, (3410,)),
    Published("MLPerf Training v3.0, a GPU", A100, (3397, 3576)),
    Published("MLPerf Training v3.0, a GPU", H100, (7007,)),
)


def _model_bytes(name: str) -> float:
    """An image's share of bytes_model's `eager` or floor at BATCH, fp16."""
    from resnet_kernels import models

    net = bytes_model.network(models.create("resnet50", fused=False), (BATCH, 3, 224, 224))
    if name == "eager":
        return bytes_model.eager(net, ELEMENT) / BATCH
    return bytes_model.ours(net, ELEMENT, bytes_model.ACROSS) / BATCH


def chains() -> tuple[Chain, ...]:
    """Stock PyTorch, our kernels unfused and as block ops, and the least."""
    found = readme.newest(readme.read(traffic.RESULTS / "step_traffic.csv"), "part", "level")
    counted = dict.fromkeys(LEVELS, 0.0)
    for row in found.values():
        counted[row["level"]] += int(row["count"]) * int(row["bytes_batch64"]) / BATCH
    return (
        Chain("eager PyTorch", "model", _model_bytes("eager")),
        Chain("our kernels, unfused", "emulator", counted[LEVELS[0]]),
        Chain("block ops", "emulator", counted[LEVELS[-1]]),
        Chain("all fused across blocks", "model", _model_bytes("floor")),
    )


class Pass(NamedTuple):
    """A convolution in one direction, an image of it: multiply-adds and bytes."""

    multiply_adds: float
    bytes: float


def conv_passes() -> list[Pass]:
    """Forward and both gradients of every convolution; images want no gradient."""
    passes = []
    for shape in RESNET50:
        products = math.prod(shape.y_size) * shape.reduction_length
        filters = math.prod(shape.w_size) / BATCH
        moved = (math.prod(shape.x_size) + math.prod(shape.y_size) + filters) * ELEMENT
        passes += [Pass(products, moved)] * ((2 if shape.c == 3 else 3) * shape.count)
    return passes


def seconds(moved: float, gpu: Datasheet) -> float:
    """An image: convolutions by the longer of their two times, all other bytes at DRAM's rate."""
    rate, maths = gpu.gb_s * 1e9, gpu.half * 1e12
    passes = conv_passes()
    rest = moved - sum(p.bytes for p in passes)
    return rest / rate + sum(max(p.bytes / rate, 2 * p.multiply_adds / maths) for p in passes)


def ceiling_table() -> str:
    headings = ["chain", "MB an image", "source"]
    for gpu in GPUS:
        headings += [f"DRAM alone, {gpu.name}: images/s", f"kernel by kernel, {gpu.name}: images/s"]
    lines = []
    for chain in chains():
        line: list[object] = [chain.name, f"{chain.bytes / 1e6:.1f}", chain.source]
        for gpu in GPUS:
            line.append(f"{gpu.gb_s * 1e9 / chain.bytes:.0f}")
            line.append(f"{1 / seconds(chain.bytes, gpu):.0f}")
        lines.append(line)
    return traffic.table(headings, lines)


def need_table() -> str:
    """What an image needs and what a GPU has."""
    passes = conv_passes()
    products = sum(p.multiply_adds for p in passes)
    lines = [
        (
            gpu.name, f"{gpu.gb_s:.0f}", f"{gpu.half:g}", f"{1e3 * gpu.half / gpu.gb_s:.0f}",
            f"{2 * products / (gpu.half * 1e12) * 1e6:.1f}",
            f"{gpu.half * 1e12 / (2 * products):.0f}",
        )
        for gpu in GPUS
    ]  # fmt: skip
    headings = ("GPU", "GB/s (datasheet)", "TFLOP/s, fp16 (datasheet)",
                "FLOP a byte where both are equal (model)",
                "tensor cores alone: us an image (model)",
                "tensor cores alone: images/s (model)")  # fmt: skip
    need = f"A step's convolutions: {products / 1e9:.2f} billion multiply-adds an image (model)."
    return f"{need}\n\n" + traffic.table(headings, lines)


def published_table() -> str:
    eager, _, ours, _ = chains()
    lines = []
    for result in PUBLISHED:
        shares = []
        for chain in (eager, ours):
            ceiling = 1 / seconds(chain.bytes, result.gpu)
            shares.append(" to ".join(f"{images / ceiling:.2f}" for images in result.images))
        images = " to ".join(f"{images:,.0f}" for images in result.images)
        lines.append((result.what, result.gpu.name, images, *shares))
    headings = ("what", "GPU", "images/s (published)", "of eager's ceiling (model)",
                "of block ops' ceiling (model)")  # fmt: skip
    return traffic.table(headings, lines)


def sections() -> dict[str, str]:
    return {"need": need_table(), "ceiling": ceiling_table(), "published": published_table()}


def write(path: Path = DOCUMENT) -> None:
    """Fills the document. Raises: SystemExit if it lacks the markers."""
    for name, text in sections().items():
        traffic.write_section(name, text, path)


if __name__ == "__main__":
    write()
