"""`python -m benchmarks table`: the README's tables, from the CSVs in benchmarks/results.

Of each op or network the newest rows of a provider count; a later run replaces an earlier one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from .traffic import RESULTS, table, write_section

README = Path(__file__).parents[1] / "README.md"
STEP_CSV, OPS_CSV = RESULTS / "cpu_step.csv", RESULTS / "ops_cpu.csv"
COUNTERS_CSV = RESULTS / "ops_emulated.csv"
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def newest(rows: Iterable[Row], *keys: str) -> dict[tuple[str, ...], Row]:
    """The last row of each value of the keys."""
    return {tuple(row[key] for key in keys): row for row in rows}


def step_table(rows: list[Row]) -> str:
    """Training steps of whole networks: medians, and ours over the best of the others."""
    found = newest(rows, "model", "batch", "size", "provider")
    lines = []
    for model, batch, size in dict.fromkeys(key[:3] for key in found):
        times = {
            p: float(r["p50_ms"]) for (*of, p), r in found.items() if of == [model, batch, size]
        }
        ours = times["fused"]
        best = min(time for provider, time in times.items() if provider != "fused")
        lines.append((
            f"{model}, {size}², batch {batch}", f"{ours:.0f} ms",
            *(f"{times[p]:.0f} ms" for p in ("eager_channels_last", "eager", "compile")),
            f"{ours / best:.2f}",
        ))  # fmt: skip
    headings = ("model", "fused", "eager channels_last", "eager NCHW", "torch.compile",
                "fused / best")  # fmt: skip
    return table(headings, lines)


def op_sums(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Milliseconds of each op on all its layers together, by provider; layers of a network count
    as often as it has them. A provider that lacks a layer of an op is left out there."""
    found = newest(rows, "op", "layer", "batch", "dtype", "provider")
    layers: dict[str, set[str]] = {}
    for op, layer, *_ in found:
        layers.setdefault(op, set()).add(layer)
    sums: dict[str, dict[str, list[float]]] = {}
    for (op, _, _, _, provider), row in found.items():
        times = sums.setdefault(op, {}).setdefault(provider, [])
        times.append(int(row["count"]) * float(row["p50_ms"]))
    return {
        op: {p: sum(times) for p, times in by.items() if len(times) == len(layers[op])}
        for op, by in sums.items()
    }


def op_shares(rows: list[Row], ours: str) -> dict[str, tuple[float, float]]:
    """Percent of the measured DRAM and arithmetic peaks that ours reaches on each op's layers
    together: all their bytes over all their time."""
    totals: dict[str, list[float]] = {}
    for row in newest(rows, "op", "layer", "batch", "dtype", "provider").values():
        if row["provider"] != ours:
            continue
        count = int(row["count"])
        gb = count * int(row["bytes_needed"]) / 1e9 / float(row["peak_gb_s"])
        tflop = count * 2 * int(row["multiply_adds"]) / 1e12 / float(row["peak_tflop_s"])
        total = totals.setdefault(row["op"], [0.0, 0.0, 0.0])
        for i, value in enumerate((gb, tflop, count * float(row["p50_ms"]) / 1e3)):
            total[i] += value
    return {op: (100 * gb / s, 100 * tflop / s) for op, (gb, tflop, s) in totals.items()}


def op_table(rows: list[Row], ours: str = "cpu") -> str:
    """Each op over all its layers: ours, both eager layouts, torch.compile where it was run."""
    shares = op_shares(rows, ours)
    sums = op_sums(rows)
    others = [
        p for p in ("eager_channels_last", "eager", "compile") if any(p in s for s in sums.values())
    ]
    lines = []
    for op, times in sums.items():
        stock = [times[p] for p in others if p in times]
        dram, maths = shares[op]
        lines.append((
            f"`{op}`", f"{times[ours]:.2f}",
            *(f"{times[p]:.2f}" if p in times else "" for p in others),
            f"{times[ours] / min(stock):.2f}", f"{dram:.0f}", f"{maths:.0f}" if maths else "",
        ))  # fmt: skip
    names = {"eager_channels_last": "eager channels_last ms", "eager": "eager NCHW ms",
             "compile": "torch.compile ms"}  # fmt: skip
    headings = ("op", "ours ms", *(names[p] for p in others), "ours / best", "% of DRAM",
                "% of multiply-adds")  # fmt: skip
    return table(headings, lines)


def counter_table(rows: list[Row]) -> str:
    """Each op's CUDA kernels over all its layers: emulator counters."""
    sums: dict[str, dict[str, int]] = {}
    keys = ("thread_instructions", "global_load_sectors", "global_store_sectors", "mma",
            "distinct_bytes_read", "distinct_bytes_written", "bytes_needed")  # fmt: skip
    for row in newest(rows, "op", "layer", "batch", "dtype").values():
        total = sums.setdefault(row["op"], dict.fromkeys(keys, 0))
        for key in keys:
            total[key] += int(row["count"]) * int(row[key])
    lines = []
    for op, total in sums.items():
        moved = total["distinct_bytes_read"] + total["distinct_bytes_written"]
        sectors = total["global_load_sectors"] + total["global_store_sectors"]
        lines.append((
            f"`{op}`", f"{total['thread_instructions'] / 1e6:.1f}", f"{total['mma'] / 1e3:.0f}",
            f"{sectors / 1e6:.3f}", f"{moved / 1e6:.2f}",
            f"{moved / total['bytes_needed']:.3f}",
        ))  # fmt: skip
    headings = ("op", "million instructions", "thousand mma", "million sectors", "MB moved",
                "moved / needed")  # fmt: skip
    return table(headings, lines)


def sections() -> dict[str, str]:
    """The README's generated parts by the name of their markers."""
    return {
        "step": step_table(read(STEP_CSV)),
        "ops": op_table(read(OPS_CSV)),
        "counters": counter_table(read(COUNTERS_CSV)),
    }


def write(path: Path = README) -> None:
    """Fills the tables. Raises: SystemExit if the file lacks their markers."""
    for name, text in sections().items():
        write_section(name, text, path)
