"""`resnet-kernels bench step` and `bench infer`: gate, memory, interleaved times, table, CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from . import engines, gate, memory, report
from .timing import Timing, interleave
from .workload import EAGER, Case, Workload

COLUMNS = {
    "provider": "provider",
    "p20_ms": "p20 ms",
    "p50_ms": "p50 ms",
    "p80_ms": "p80 ms",
    "images_per_second": "images/s",
    "time_ratio": "time / best eager",
    "saved_mb": "saved MB",
    "peak_mb": "peak MB",
}
MB = 1e6
# onnxruntime's threads wait busily for some 50 ms after a call.
REST_SECONDS = 0.2
Row = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One provider: time, bytes its forward keeps, peak bytes of a step (None: not measured)."""

    provider: str
    timing: Timing
    saved: int | None
    peak: int | None


def measure(
    case: Case, providers: Sequence[str], reps: int, warmup: int, peaks: bool, console: Console
) -> list[Measurement]:
    """Measures the providers against each other; the gate is the caller's."""
    device = torch.device(case.device)
    peak: dict[str, int | None] = dict.fromkeys(providers)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("memory", total=len(providers) + reps + warmup)
        for provider in providers if peaks else ():
            peak[provider] = memory.peak_in_subprocess(provider, case, torch.get_num_threads())
            progress.advance(task)
        progress.update(task, description="time", completed=len(providers))
        work = {provider: Workload(provider, case) for provider in providers}
        calls = {provider: workload.call() for provider, workload in work.items()}
        # Inference in earnest asks one network again and again.
        serving = not case.train and device.type == "cpu"
        timings = interleave(
            calls, reps, warmup, case.seed, device, lambda: progress.advance(task),
            rest=REST_SECONDS if serving else 0.0, lead=2 if serving else 0,
        )  # fmt: skip
    saved = {p: memory.saved_bytes(w) if case.train else None for p, w in work.items()}
    return [Measurement(p, timings[p], saved[p], peak[p]) for p in providers]


def rows_of(case: Case, found: Sequence[Measurement]) -> list[Row]:
    """CSV rows; `time_ratio` is the median over that of the faster eager provider."""
    eager = [m.timing.p50 for m in found if m.provider in EAGER]
    where = report.environment(torch.device(case.device))
    rows: list[Row] = []
    for m in found:
        rows.append(
            {
                **where,
                "what": "step" if case.train else "infer",
                "model": case.model,
                "batch": case.batch,
                "size": case.size,
                "dtype": case.dtype,
                "provider": m.provider,
                "engine_version": engines.version(m.provider),
                "reps": m.timing.reps,
                "p20_ms": f"{m.timing.p20:.2f}",
                "p50_ms": f"{m.timing.p50:.2f}",
                "p80_ms": f"{m.timing.p80:.2f}",
                "images_per_second": f"{case.batch / m.timing.p50 * 1e3:.1f}",
                "time_ratio": f"{m.timing.p50 / min(eager):.3f}" if eager else "",
                "saved_mb": "" if m.saved is None else f"{m.saved / MB:.1f}",
                "peak_mb": "" if m.peak is None else f"{m.peak / MB:.1f}",
            }
        )
    return rows


def ratios(rows: Sequence[Row]) -> list[str]:
    """What of the baselines' time the fused network takes."""
    times = {str(row["provider"]): float(str(row["p50_ms"])) for row in rows}
    fused = times.pop("fused", None)
    eager = {name: time for name, time in times.items() if name in EAGER}
    lines = []
    for what, others in (("best eager", eager), ("best of all", times)):
        if fused is not None and others:
            best = min(others, key=others.__getitem__)
            lines.append(f"fused / {what} ({best}): {fused / others[best]:.3f} of the time")
    return lines


def run(
    case: Case,
    providers: Sequence[str],
    reps: int,
    warmup: int,
    peaks: bool,
    csv_path: Path,
    console: Console,
    check: Callable[[Case], gate.Verdict] = gate.check,
) -> int:
    """The whole command; returns 1, without any number, if the gate fails."""
    verdict = check(case)
    console.print(str(verdict), highlight=False, soft_wrap=True)
    if not verdict.passed:
        return 1
    rows = rows_of(case, measure(case, providers, reps, warmup, peaks, console))
    what = "training step" if case.train else "inference"
    report.show(
        f"{case.model}, {what}, batch {case.batch}, {case.size}x{case.size}, {case.dtype}, "
        f"{rows[0]['device']}, {rows[0]['threads']} threads",
        rows,
        COLUMNS,
    )
    for line in ratios(rows):
        console.print(line, highlight=False)
    report.append_csv(csv_path, rows)
    console.print(f"appended {len(rows)} rows to {csv_path}", highlight=False, soft_wrap=True)
    return 0
