"""Counts what the forward kernels move on every distinct convolution of ResNet-50, fp16.

First conv_fwd_stats alone, against what its algorithm needs; then a layer of the block ops (batch
norm and activation of the previous layer in the prologue, statistics in the epilogue) against the
chain of our own kernels that writes everything out. Emulator counters, no times. Fills
docs/traffic.md and appends to benchmarks/results/conv_traffic.csv.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from python_tests.shapes import RESNET50, ConvShape
from resnet_kernels.bench import report
from resnet_kernels.emulator import Counters
from resnet_kernels.ops.acts import RELU

from . import traffic
from .conv_ideal import ideal, ideal_window, tile_of
from .layers import has_prologue
from .traffic import OPS, Moved, activation, megabytes, moved, vector, weight

NO_PROLOGUE = (None, None, 0, 0.0)
NO_EPILOGUE = (None, None, None, 0, 0.0)
FINALIZE = (None, None, None, None, 0.1, 1e-5)  # no running statistics; momentum; eps


def layer_arguments(shape: ConvShape) -> tuple[Any, ...]:
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
    return activation(shape.x_size), weight(shape.w_size), geometry


def measure_kernel(shape: ConvShape) -> dict[str, object]:
    """One row: the implicit-GEMM kernel alone."""
    x, w, geometry = layer_arguments(shape)
    prologue = has_prologue(shape)
    before = (vector(shape.c), vector(shape.c), RELU, 0.0) if prologue else NO_PROLOGUE
    kernels = traffic.counters(lambda: OPS.conv_fwd_stats(x, w, *before, *geometry))
    name, counts = next((n, c) for n, c in kernels.items() if "igemm" in n)
    tile = tile_of(name)
    windows = shape.c % 16 != 0
    least = ideal_window(shape, tile, True) if windows else ideal(shape, tile, prologue, True)
    sectors = counts.global_load_sectors + counts.global_store_sectors
    fewest = least.load_sectors + least.store_sectors
    return {
        "layer": shape.id,
        "count": shape.count,
        "prologue": "yes" if prologue else "no",
        "tile": f"{tile.rows}x{tile.columns}",
        "sectors": sectors,
        "ideal_sectors": fewest,
        "sector_ratio": f"{sectors / fewest:.3f}",
        "compulsory_bytes": least.bytes_read + least.bytes_written,
        "distinct_bytes": counts.distinct_bytes_read + counts.distinct_bytes_written,
        **conflicts(counts),
    }


def conflicts(counts: Counters) -> dict[str, object]:
    """Wavefronts of shared memory beyond the ideal: of loads, and of stores per block."""
    stores = counts.shared_store_wavefronts - counts.shared_store_wavefronts_ideal
    return {
        "load_conflicts": counts.shared_load_wavefronts - counts.shared_load_wavefronts_ideal,
        "store_conflicts_per_block": f"{stores / counts.blocks:g}",
    }


def measure_chain(shape: ConvShape) -> tuple[Moved, Moved]:
    """A layer fused and unfused: (previous bn's apply,) convolution, statistics, finalize."""
    x, w, geometry = layer_arguments(shape)
    scale, bias = vector(shape.c), vector(shape.c)
    gamma, beta = vector(shape.k), vector(shape.k)

    def fused() -> None:
        before = (scale, bias, RELU, 0.0) if has_prologue(shape) else NO_PROLOGUE
        _, stats = OPS.conv_fwd_stats(x, w, *before, *geometry)
        OPS.bn_finalize(stats[None], gamma, beta, *FINALIZE)

    def unfused() -> None:
        z = x
        if has_prologue(shape):
            z = OPS.bn_act_fwd(x, scale, bias, None, None, None, RELU, 0.0)
        y = OPS.conv_fwd(z, w, *NO_PROLOGUE, *NO_EPILOGUE, *geometry)
        OPS.bn_finalize(OPS.bn_stats(y)[None], gamma, beta, *FINALIZE)

    return moved(fused), moved(unfused)


def chain_row(shape: ConvShape) -> dict[str, object]:
    fused, unfused = measure_chain(shape)
    return {
        "fused_bytes": fused.bytes,
        "unfused_bytes": unfused.bytes,
        "byte_ratio": f"{fused.bytes / unfused.bytes:.3f}",
        "fused_sectors": fused.sectors,
        "unfused_sectors": unfused.sectors,
        "chain_sector_ratio": f"{fused.sectors / unfused.sectors:.3f}",
    }


def kernel_table(rows: list[dict[str, Any]]) -> str:
    headings = ("layer", "times", "prologue", "tile", "sectors / ideal", "sectors", "distinct MB",
                "compulsory MB", "load conflicts", "store conflicts a block")  # fmt: skip
    return traffic.table(
        headings,
        (
            (
                row["layer"], row["count"], row["prologue"], row["tile"], row["sector_ratio"],
                row["sectors"], megabytes(row["distinct_bytes"]),
                megabytes(row["compulsory_bytes"]), row["load_conflicts"],
                row["store_conflicts_per_block"],
            )
            for row in rows
        ),
    )  # fmt: skip


def chain_table(rows: list[dict[str, Any]]) -> str:
    headings = ("layer", "times", "fused MB", "unfused MB", "fused / unfused", "fused sectors",
                "unfused sectors", "fused / unfused")  # fmt: skip
    lines = [
        (
            row["layer"], row["count"], megabytes(row["fused_bytes"]),
            megabytes(row["unfused_bytes"]), row["byte_ratio"], row["fused_sectors"],
            row["unfused_sectors"], row["chain_sector_ratio"],
        )
        for row in rows
    ]  # fmt: skip
    keys = ("fused_bytes", "unfused_bytes", "fused_sectors", "unfused_sectors")
    a, b, c, d = (sum(row["count"] * row[key] for row in rows) for key in keys)
    total = ("all, with their multiplicity", sum(row["count"] for row in rows), megabytes(a),
             megabytes(b), f"{a / b:.3f}", c, d, f"{c / d:.3f}")  # fmt: skip
    return traffic.table(headings, [*lines, total])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=1)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for shape in RESNET50:
        shape = shape.at(options.batch_size)
        rows.append({**measure_kernel(shape), **chain_row(shape)})
        print(rows[-1], flush=True)
    where = report.environment(torch.device("cpu")) | {"device": "emulated sm_80"}
    report.append_csv(
        traffic.RESULTS / "conv_traffic.csv",
        [{**where, "batch": options.batch_size, "dtype": "fp16", **row} for row in rows],
    )
    traffic.write_section("conv_fwd", kernel_table(rows))
    traffic.write_section("conv_chain", chain_table(rows))


if __name__ == "__main__":
    main()
