"""The parts that are programs of their own: compute-sanitizer and the benchmarks."""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import suites
from .outcome import ROOT, Checks, Context, Outcome

# Small cases of every kind of kernel: under the sanitizer each launch is slow.
SANITIZED = ("conv_fwd", "conv_dgrad", "conv_wgrad", "bn_act_fwd", "bn_act_bwd_reduce")
SANITIZED_TESTS = (
    "bf16 and (test_epilogue and cuda-2 or test_acts and cuda-2 or test_prologue and cuda-2"
    " or test_deterministic)"
)
DRY_SANITIZED_TESTS = "test_epilogue and bf16 and emulated-2-plain"
TOOLS = ("memcheck", "racecheck", "synccheck")
TOOL_SECONDS = 150
ERRORS_FOUND = 86


def sanitizer(context: Context) -> Outcome:
    """compute-sanitizer over op tests; in a dry run the emulator, which makes the same checks."""
    files = [str(suites.TESTS / f"test_{name}.py") for name in SANITIZED]
    if context.dry:
        suite = suites.Suite(SANITIZED[:1], ("cuda",), DRY_SANITIZED_TESTS)
        outcome = suite(context)
        outcome.needs_gpu += [f"compute-sanitizer {tool}" for tool in TOOLS]
        return outcome
    program = _sanitizer()
    if program is None:
        return Outcome(True, "compute-sanitizer is not on this machine", absent=True)
    tests = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", SANITIZED_TESTS, *files]
    environment = {
        **os.environ,
        "RNK_TEST_BACKENDS": "cuda",
        "PYTHONPATH": str(suites.TESTS),
        # Each tensor an allocation of its own: an access past its end is then seen.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    checks = Checks()
    for tool in TOOLS:
        command = [program, "--tool", tool, "--error-exitcode", str(ERRORS_FOUND)]
        command += [sys.executable, "-m", "pytest", *tests, *suites.injected(context)]
        code = _run(command, environment, TOOL_SECONDS)
        why = {ERRORS_FOUND: "it found errors", None: f"longer than {TOOL_SECONDS} s"}
        checks.add(f"compute-sanitizer {tool}", code == 0, why.get(code, f"exit code {code}"))
    return checks.outcome


def _sanitizer() -> str | None:
    homes = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [Path(home) / "bin" for home in homes if home] + [Path("/usr/local/cuda/bin")]
    paths = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    return shutil.which("compute-sanitizer", path=paths)


def _run(command: Sequence[str], environment: dict[str, str], seconds: float) -> int | None:
    """Exit code; None where it took longer."""
    print("$", " ".join(command), flush=True)
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return None


# Batch sizes of the measurements, and seconds that they may take: what does not fit is named.
BATCHES = ("32", "256")
BUDGET = "180"


def bench_ops(context: Context) -> Outcome:
    """Each op on the layers of ResNet-50 against eager torch; in a dry run the counters."""
    ops = ["bn_stats", "conv_fwd"]
    if context.dry:
        options = ["--device", "emulated", "--layers", "tiny", "--batch", "1", "--dtype", "bf16"]
        options += ["--op", *ops, "--budget", "20"]
    else:
        options = ["--device", "cuda", "--batch", *BATCHES, "--dtype", "bf16", "--budget", BUDGET]
    outcome = _benchmarks(context, ["ops", *options], "op", ops)
    outcome.needs_gpu += ["times of the ops"] if context.dry else []
    return outcome


def bench_models(context: Context) -> Outcome:
    """Training step and inference of whole networks, against eager and compiled torch."""
    if context.dry:
        options = ["--device", "cpu", "--model", "resnet8", "--batch", "2", "--size", "16"]
        options += ["--dtype", "fp32", "--reps", "1", "--what", "step", "--no-peak"]
        options += ["--providers", "cpu", "eager"]
        outcome = _benchmarks(context, ["models", *options], "model", ["resnet8"])
        outcome.needs_gpu += ["times of whole networks"]
        return outcome
    options = ["--device", "cuda", "--model", "resnet50", "--batch", "64", "--dtype", "bf16"]
    return _benchmarks(context, ["models", *options, "--budget", "360"], "model", ["resnet50"])


def _benchmarks(
    context: Context, arguments: list[str], column: str, wanted: Sequence[str]
) -> Outcome:
    """`python -m benchmarks`: it ends well and its CSV has rows for all that is wanted."""
    path = context.folder / f"{arguments[0]}.csv"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", *arguments, "--csv", str(path)]
    checks = Checks()
    code = _run(command, dict(os.environ), 470)
    checks.add("python -m benchmarks", code == 0, f"exit code {code}")
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    found = {row.get(column, "") for row in rows}
    for name in [*wanted, "what nobody measures"] if context.inject else wanted:
        checks.add(f"rows of {name}", name in found, f"of {len(rows)} rows")
    checks.outcome.figures = {"rows": len(rows), "csv": str(path), **_ratios(rows)}
    return checks.outcome


def _ratios(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Median over rows of each provider's time by the best eager one's."""
    by: dict[str, list[float]] = {}
    for row in rows:
        if row.get("time_ratio"):
            by.setdefault(row["provider"], []).append(float(row["time_ratio"]))
    return {f"median time ratio of {name}": statistics.median(v) for name, v in by.items()}
