"""How the forward convolution got from naive to fused: emulator counters of each step.

One layer of ResNet-50 (128 channels of 28 x 28, 3x3), one image, on the kernels of the library: the
generic one, then the implicit GEMM's tiles, then what is fused into it. Fills docs/ladder.md and
appends to benchmarks/results/ladder.csv. Counts, no times.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from python_tests.shapes import ConvShape
from resnet_kernels.bench import report

from . import traffic
from .cases import NO_PROLOGUE, RELU_ARGS, Maker
from .emulated import summed
from .readme import Row, newest, read
from .traffic import OPS

DOCUMENT = Path(__file__).parents[1] / "docs/ladder.md"
CSV = traffic.RESULTS / "ladder.csv"
LAYER = ConvShape(1, 128, 28, 28, 128, 3, 3, (1, 1), (1, 1))
NO_EPILOGUE = (None, None, None, 0, 0.0)


class Step(NamedTuple):
    """A dtype, the kernel that RNK_CUDA_CONV and RNK_CUDA_TILE choose, what is fused into it.

    chain: batch norm with relu in front and statistics behind belong to the step, in passes of
    their own unless they are fused.
    """

    name: str
    dtype: str
    conv: str = "auto"
    tile: str = ""
    chain: bool = False
    prologue: bool = False
    statistics: bool = False


STEPS = (
    Step("generic kernel, fp32", "fp32", "generic"),
    Step("generic kernel, fp16", "fp16", "generic"),
    Step("implicit GEMM on fp32 units, 128 x 64", "fp32"),
    Step("tensor cores, tf32, 64 x 64", "tf32", tile="64x64"),
    Step("tensor cores, tf32, 128 x 128", "tf32", tile="128x128"),
    Step("tensor cores, fp16, 64 x 64", "fp16", tile="64x64"),
    Step("tensor cores, fp16, 128 x 64", "fp16", tile="128x64"),
    Step("tensor cores, fp16, 128 x 128", "fp16", tile="128x128"),
    Step("+ batch norm, relu and statistics in passes of their own", "fp16", "auto", "128x128",
         chain=True),
    Step("+ batch norm and relu in the prologue", "fp16", "auto", "128x128", True, True),
    Step("+ statistics in the epilogue", "fp16", "auto", "128x128", True, True, True),
)  # fmt: skip


@contextlib.contextmanager
def chosen(step: Step) -> Iterator[None]:
    """The environment in which the library takes the step's kernel."""
    wanted = {"RNK_CUDA_CONV": step.conv, "RNK_CUDA_TILE": step.tile}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run(step: Step, shape: ConvShape) -> None:
    """The step's kernels on the emulator."""
    make = Maker(shape.n, step.dtype, torch.device("cpu"))
    x, w, affine = make.activation(shape.x_size), make.weight(shape), make.vectors(shape.c, 2)
    before: tuple[Any, ...] = NO_PROLOGUE
    if step.prologue:
        before = (*affine, *RELU_ARGS)
    elif step.chain:
        x = OPS.bn_act_fwd(x, *affine, None, None, None, *RELU_ARGS)
    if step.statistics:
        OPS.conv_fwd_stats(x, w, *before, *make.geometry(shape))
        return
    y = OPS.conv_fwd(x, w, *before, *NO_EPILOGUE, *make.geometry(shape))
    if step.chain:
        OPS.bn_stats(y)


def measure(step: Step, shape: ConvShape) -> dict[str, Any]:
    """Counters of all kernels of the step; `kernels` tells which there were."""
    with chosen(step):
        kernels = traffic.counters(lambda: run(step, shape))
    return {
        "layer": shape.id,
        "step": step.name,
        "dtype": step.dtype,
        "kernels": len(kernels),
        "outputs": math.prod(shape.y_size),
        "multiply_adds": math.prod(shape.y_size) * shape.reduction_length,
        **summed(kernels.values()),
    }


def _line(row: Row) -> tuple[object, ...]:
    def per_output(*names: str) -> float:
        return sum(int(row[name]) for name in names) / int(row["outputs"])

    wavefronts = ("shared_load_wavefronts", "shared_store_wavefronts")
    moved = int(row["distinct_bytes_read"]) + int(row["distinct_bytes_written"])
    return (
        row["step"], row["kernels"], f"{per_output('thread_instructions'):.1f}",
        f"{per_output('global_load_sectors', 'global_store_sectors'):.3f}",
        f"{per_output(*wavefronts):.3f}", f"{per_output('mma'):.4f}",
        f"{int(row['multiply_adds']) / int(row['thread_instructions']):.2f}",
        f"{moved / 1e6:.2f}",
    )  # fmt: skip


HEADINGS = (
    "step", "kernels", "instructions an output", "sectors an output",
    "shared wavefronts an output", "mma an output", "multiply-adds an instruction", "MB moved",
)  # fmt: skip


def tables(rows: list[Row]) -> dict[str, str]:
    """The sections of docs/ladder.md, from the newest rows."""
    found = newest(rows, "step")
    kernel, chain = (
        [_line(found[step.name,]) for step in STEPS if step.chain is wanted]
        for wanted in (False, True)
    )
    return {"kernel": traffic.table(HEADINGS, kernel), "chain": traffic.table(HEADINGS, chain)}


def write(path: Path = DOCUMENT) -> None:
    """Fills the document from the CSV."""
    for name, text in tables(read(CSV)).items():
        traffic.write_section(name, text, path)


def main() -> None:
    where = report.environment(torch.device("cpu")) | {"device": "emulated sm_80"}
    rows = []
    for step in STEPS:
        rows.append({**where, **measure(step, LAYER)})
        print(rows[-1], flush=True)
    report.append_csv(CSV, rows)
    write()


if __name__ == "__main__":
    main()
