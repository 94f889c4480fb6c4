"""`python -m benchmarks ops --device emulated`: what our CUDA kernels do on the emulator. No times.

Each op runs on the very kernels a GPU would run; instructions, sectors and bytes are counted
(resnet_kernels.emulator). The results pass the same gate as measured ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from resnet_kernels import emulator
from resnet_kernels.bench import report

from . import registry, traffic
from .cases import Case, Maker
from .gate import Gate, WrongResult, as_tuple
from .layers import LAYERS
from .ops import Options, Row, Skipped

SUMMED = (
    "blocks", "thread_instructions", "global_load_sectors", "global_load_sectors_ideal",
    "global_store_sectors", "global_store_sectors_ideal", "distinct_bytes_read",
    "distinct_bytes_written", "shared_load_wavefronts", "shared_load_wavefronts_ideal",
    "shared_store_wavefronts", "shared_store_wavefronts_ideal", "mma", "mma_multiply_adds",
    "barriers",
)  # fmt: skip


def summed(kernels: Iterable[emulator.Counters]) -> dict[str, int]:
    """Counters of all kernels together."""
    kernels = list(kernels)
    return {name: sum(getattr(c, name) for c in kernels) for name in SUMMED}


def count(case: Case, dtype: str) -> Row:
    """Counters of one case.

    Raises: WrongResult from the gate; SystemExit if anything ran outside the kernels.
    """
    gate = Gate(case, dtype)
    results: list[Any] = []
    with torch.no_grad():
        kernels = traffic.counters(lambda: results.append(case.run(traffic.OPS, *case.args)))
    gate.check(as_tuple(results[0]))
    totals = summed(kernels.values())
    needed = case.bytes_needed(gate.plain)
    moved = totals["distinct_bytes_read"] + totals["distinct_bytes_written"]
    return {
        "multiply_adds": case.need.multiply_adds,
        "bytes_needed": needed,
        "bytes_ratio": f"{moved / needed:.3f}",
        **totals,
    }


class EmulatedBench:
    """One run of the command; as ops.OpBench."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.skipped, self.wrong, self.rows = Skipped(), list[str](), list[Row]()
        self._where = report.environment(torch.device("cpu")) | {"device": "emulated sm_80"}
        self._end = time.monotonic() + options.budget if options.budget else float("inf")

    def run(self) -> None:
        """All dtypes and batches; a layer beyond the budget is skipped by name."""
        for dtype, batch, case in self._cases():
            where = {
                **self._where, "op": case.op, "layer": case.layer, "count": case.count,
                "batch": batch, "dtype": dtype,
            }  # fmt: skip
            try:
                row = {**where, **count(case, dtype)}
            except WrongResult as error:
                self.wrong.append(f"{error} ({dtype})")
                continue
            report.append_csv(self.options.csv, [row])
            self.rows.append(row)

    def _cases(self) -> Iterator[tuple[str, int, Case]]:
        options, layers = self.options, LAYERS[self.options.layers]
        for dtype in options.dtypes:

            def skip(name: str, dtype: str = dtype) -> None:
                self.skipped.add("budget", f"{name} {dtype}")

            for batch in options.batches:
                make = Maker(batch, dtype, torch.device("cpu"))
                for case in registry.until(self._end, options.ops, layers, make, skip):
                    yield dtype, batch, case
