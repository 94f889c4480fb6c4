"""The parts that are tests of python_tests, run by pytest on the backends of a GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from typing import Any

from .outcome import ROOT, CannotRun, Context, Outcome

TESTS = ROOT / "python_tests"
BN = ("bn_stats", "bn_finalize", "bn_act_fwd", "bn_act_bwd_reduce", "bn_bwd_apply")
CONV = ("conv_fwd", "conv_dgrad", "conv_wgrad", "conv_apply_dgrad")
LAYERS = ("bn_act", "conv_act", "conv_bn_act", "blocks", "pool", "autocast", "emulated_model")
MAX_WORKERS = 8


@dataclasses.dataclass(frozen=True)
class Suite:
    """Test files, without test_ and .py, that run on `backends` ("cuda", "triton").

    dry: pytest's -k of the tests that a dry run takes, of the files in `dry_files` (all).
    workers: whether the work may be spread over processes.
    """

    files: tuple[str, ...]
    backends: tuple[str, ...]
    dry: str
    dry_files: tuple[str, ...] = ()
    workers: bool = True

    def __call__(self, context: Context) -> Outcome:
        if importlib.util.find_spec("pytest") is None:
            raise CannotRun("pytest is not installed for this interpreter")
        chosen = [name for name in context.backends if name.split("-")[0] in self.backends]
        os.environ |= {"RNK_TEST_BACKENDS": " ".join(chosen), "RNK_STRICT": "1"}
        files = self.dry_files if context.dry and self.dry_files else self.files
        arguments = [str(TESTS / f"{_path(name)}.py") for name in files]
        if context.dry:
            arguments += ["-k", self.dry]
        elif self.workers:
            arguments += _workers()
        return run_pytest([*arguments, *injected(context)])


def _path(name: str) -> str:
    folder, _, stem = name.rpartition("/")
    return f"{folder}/test_{stem}" if folder else f"test_{stem}"


def _workers() -> list[str]:
    """pytest-xdist's arguments, where it is installed: the oracle is computed on the CPU."""
    if importlib.util.find_spec("xdist") is None:
        return []
    cores = os.cpu_count() or 1
    count = max(1, min(MAX_WORKERS, cores // 2))
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // count))
    return ["-p", "xdist", "-n", str(count)]


def injected(context: Context) -> list[str]:
    """pytest's arguments that let every test compare with wrong values, where that is asked for."""
    return ["-p", "wrong_values", "--maxfail", "1"] if context.inject else []


class Counter:
    """A pytest plugin that counts results and keeps the first failure."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
        self.first = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.passed and report.when != "call":
            return
        kind = report.outcome if report.when == "call" or report.skipped else "errors"
        self.counts[kind] += 1
        if report.failed:
            self._keep(report)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.counts["errors"] += 1
            self._keep(report)

    def _keep(self, report: Any) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = (crash.message if crash else str(report.longrepr)).splitlines()
        self.first = self.first or f"{report.nodeid}: {(lines or ['failed'])[0]}"


def run_pytest(arguments: list[str]) -> Outcome:
    """Runs pytest in this process. Passed if tests ran, and all of them passed."""
    import pytest

    sys.path.insert(0, str(TESTS))
    os.chdir(ROOT)
    # Other packages' plugins take longer to load than a small suite takes to run.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    counter = Counter()
    fixed = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:ptx_coverage"]
    fixed += ["-m", "full or not full", "--show-capture", "no"]
    code = int(pytest.main([*fixed, "-o", "addopts=", *arguments], plugins=[counter]))
    counts = counter.counts
    reason = counter.first
    if not reason and counts["skipped"]:
        reason = f"{counts['skipped']} tests were skipped"
    elif not reason and code:
        reason = "no test was selected" if code == 5 else f"pytest ended with code {code}"
    return Outcome(not reason and counts["passed"] > 0, reason, counts)
