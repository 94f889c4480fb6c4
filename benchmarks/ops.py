"""`python -m benchmarks ops`: every op on every layer, gate first, interleaved times, CSV rows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from resnet_kernels.bench import memory, report
from resnet_kernels.bench.timing import Timing, captured, interleave
from resnet_kernels.bench.workload import precision
from resnet_kernels.ops import library

from . import providers, registry, roofline
from .cases import Case, Maker
from .gate import Gate, WrongResult, run_checked
from .layers import LAYERS

Row = dict[str, Any]
WARMUP = 2


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says. cache: cold or warm; budget: seconds, 0 for no limit."""

    ops: tuple[str, ...]
    device: torch.device
    batches: tuple[int, ...]
    dtypes: tuple[str, ...]
    layers: str
    providers: tuple[str, ...]
    csv: Path
    budget: float
    reps: int
    cache: str = "cold"
    graph: bool = False


class Bench(Protocol):
    """What a run of the command leaves."""

    rows: list[Row]
    skipped: Skipped
    wrong: list[str]

    def run(self) -> None: ...


class Skipped(dict[str, list[str]]):
    """Reason -> what was not measured for it."""

    def add(self, reason: str, what: str) -> None:
        names = self.setdefault(reason, [])
        if what not in names:
            names.append(what)

    def __str__(self) -> str:
        return "\n".join(f"not measured ({why}): " + "; ".join(self[why]) for why in self)


class OpBench:
    """One run of the command; `rows` are written as they come, `wrong` names failed gates."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.skipped = Skipped()
        self.wrong: list[str] = []
        self.rows: list[Row] = []
        self._where = report.environment(options.device)
        self._flush = roofline.cache_flush(options.device)
        self._end = time.monotonic() + options.budget if options.budget else float("inf")

    def run(self) -> None:
        """All dtypes and batches. A layer beyond the budget, or the memory, is skipped by name."""
        for dtype in self.options.dtypes:
            names = self._present(dtype)
            if not names:
                continue
            peaks = roofline.measure(self.options.device, dtype)
            for batch in self.options.batches:
                for case in self._cases(dtype, batch):
                    rows = self._measure(case, dtype, batch, names, peaks)
                    if rows:
                        report.append_csv(self.options.csv, rows)
                    self.rows += rows

    def _present(self, dtype: str) -> list[str]:
        names = []
        for name in self.options.providers:
            if why := providers.unavailable(name, self.options.device, dtype):
                self.skipped.add(why, f"{name} {dtype}")
            else:
                names.append(name)
        return names

    def _cases(self, dtype: str, batch: int) -> Iterator[Case]:
        options = self.options
        make = Maker(batch, dtype, options.device)
        return registry.until(
            self._end,
            options.ops,
            LAYERS[options.layers],
            make,
            lambda name: self.skipped.add("budget", f"{name} N{batch} {dtype}"),
        )

    def _measure(
        self,
        case: Case,
        dtype: str,
        batch: int,
        names: Sequence[str],
        peaks: roofline.Peaks,
    ) -> list[Row]:
        where = {
            **self._where,
            "op": case.op,
            "layer": case.layer,
            "count": case.count,
            "batch": batch,
            "dtype": dtype,
        }
        try:
            with torch.no_grad():
                return [{**where, **row} for row in self._rows(case, dtype, names, peaks)]
        except WrongResult as error:
            self.wrong.append(f"{error} ({dtype})")
        except torch.OutOfMemoryError:
            self.skipped.add("out of memory", f"{case.name} {dtype}")
            torch.cuda.empty_cache()
        return []

    def _calls(
        self, case: Case, dtype: str, names: Sequence[str]
    ) -> tuple[dict[str, providers.Call], int, dict[str, str]]:
        """What is timed by provider, the bytes the case needs, who answered with plain torch."""
        torch._dynamo.reset()  # or a tenth shape of one function would no longer be compiled
        gate = Gate(case, dtype)
        needed = case.bytes_needed(gate.plain)
        calls: dict[str, providers.Call] = {}
        fallback: dict[str, str] = {}
        for name in names:
            try:
                call = providers.call_of(name, case)
                library.fallback_counts(reset=True)
                run_checked(case, gate, call, ours=name in providers.OURS)
                fallback[name] = "torch" if library.fallback_counts() else ""
                calls[name] = captured(call) if self.options.graph else call
            except (WrongResult, torch.OutOfMemoryError):
                raise
            except Exception as error:
                if name in providers.OURS:
                    raise
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self.skipped.add(f"{name} failed: {first}", f"{case.name} {dtype}")
        return calls, needed, fallback

    def _rows(
        self, case: Case, dtype: str, names: Sequence[str], peaks: roofline.Peaks
    ) -> list[Row]:
        options = self.options
        with precision(dtype):
            calls, needed, fallback = self._calls(case, dtype, names)
            if not calls:
                return []
            peak = {name: memory.peak_of_call(call, options.device) for name, call in calls.items()}
            timings = interleave(
                calls, options.reps, WARMUP, device=options.device, before=self._before(calls)
            )
        eager = [t.p50 for name, t in timings.items() if name in providers.EAGER]
        return [
            {
                "provider": name,
                "fallback": fallback[name],
                "cache": options.cache,
                "graph": "yes" if options.graph else "no",
                "reps": timing.reps,
                **self._time_columns(timing, min(eager) if eager else None),
                **shares(case, needed, timing, peaks),
                "peak_mb": "" if peak[name] is None else f"{(peak[name] or 0) / 1e6:.2f}",
                **peaks.columns(),
            }
            for name, timing in timings.items()
        ]

    def _before(self, calls: dict[str, providers.Call]) -> providers.Call:
        """Cold: caches are emptied before each call. Warm: the call finds what others left."""
        return self._flush if self.options.cache == "cold" else lambda: None

    @staticmethod
    def _time_columns(timing: Timing, eager: float | None) -> Row:
        return {
            "p20_ms": f"{timing.p20:.4f}",
            "p50_ms": f"{timing.p50:.4f}",
            "p80_ms": f"{timing.p80:.4f}",
            "time_ratio": "" if eager is None else f"{timing.p50 / eager:.3f}",
        }


def shares(case: Case, needed: int, timing: Timing, peaks: roofline.Peaks) -> Row:
    """Bytes and multiply-adds that the op needs, whoever runs it, and what part of the device's
    measured peaks they are at the median time."""
    gb_s = needed / timing.p50 / 1e6
    tflop_s = 2 * case.need.multiply_adds / timing.p50 / 1e9
    return {
        "bytes_needed": needed,
        "multiply_adds": case.need.multiply_adds,
        "dram_percent": f"{100 * gb_s / peaks.gb_s:.1f}",
        "math_percent": f"{100 * tflop_s / peaks.tflop_s:.1f}" if case.need.multiply_adds else "",
    }
