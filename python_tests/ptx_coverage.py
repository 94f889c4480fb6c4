"""Prints the PTX coverage of a test run, summed over the processes of pytest-xdist.

RNK_EMULATOR_COVERAGE=kernels lists every kernel of the library, =lines unexecuted PTX lines too,
=idle the source lines behind them. --check-ptx-coverage, for a run of all tests, fails it where a
kernel was never launched, too little was executed, or a line is idle that idle_lines.txt does not
give a reason for.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import pytest
import source_coverage

from resnet_kernels import _native

# (module, kernel) -> (PTX line, executed?) of each instruction
Table = dict[tuple[str, str], list[tuple[int, bool]]]
_workers: Table = {}
OPTION = "--check-ptx-coverage"


def _of_this_process() -> Table:
    emulator = sys.modules.get("resnet_kernels.emulator")
    if emulator is None:
        return {}
    return {
        key: [(line, warps > 0) for line, warps in rows]
        for key, rows in emulator.executions().items()
    }


def merge(into: Table, table: Table) -> None:
    """Adds what another process executed."""
    for key, rows in table.items():
        before = into.get(key, [(line, False) for line, _ in rows])
        into[key] = [(line, a or b) for (line, a), (_, b) in zip(before, rows, strict=True)]


def report(table: Table, detail: str) -> list[str]:
    """The lines to print; none where no PTX was seen."""
    lines = []
    for title, is_library in (("of the library's kernels", True), ("of the tests' PTX", False)):
        part = {k: r for k, r in table.items() if k[0].startswith("library:") == is_library}
        if not part:
            continue
        executed = sum(ran for rows in part.values() for _, ran in rows)
        total = sum(map(len, part.values()))
        idle = sum(not any(ran for _, ran in rows) for rows in part.values())
        lines.append(
            f"PTX coverage {title}: {executed} of {total} instructions "
            f"in {len(part)} kernels, {idle} never launched"
        )
        if not is_library or detail not in ("kernels", "lines"):
            continue
        for (_, kernel), rows in sorted(part.items()):
            missed = sorted({line for line, ran in rows if not ran})
            lines.append(f"  {len(rows) - len(missed):6} of {len(rows):6}  {kernel}")
            if missed and detail == "lines":
                lines.append(f"          lines {', '.join(map(str, missed))}")
    return lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    rows = getattr(node, "workeroutput", {}).get("ptx_coverage", [])
    merge(_workers, {(module, kernel): [tuple(r) for r in table] for module, kernel, table in rows})


def _modules(table: Table) -> list[tuple[str, dict[str, list[tuple[int, bool]]]]]:
    """The library's PTX texts with what was executed of their kernels."""
    emulator = importlib.import_module("resnet_kernels.emulator")
    return [
        (ptx, {kernel: rows for (module, kernel), rows in table.items() if module == name})
        for name, ptx in emulator.embedded_ptx().items()
    ]


def defects(table: Table) -> list[str]:
    """What keeps a run of all tests from being complete; empty where nothing does."""
    if not any(module.startswith("library:") for module, _ in table):
        return []
    idle, good, total = source_coverage.idle_lines(_modules(table))
    reasons = source_coverage.allowed()
    new = [key for key in idle if key not in reasons and key.partition(":")[0] not in reasons]
    if not source_coverage.list_is_for(_native.status()["cuda"].build.get("cuda_version", "")):
        new = []
    found = [f"idle without a reason in idle_lines.txt: {key}" for key in sorted(new)]
    if good < source_coverage.REQUIRED * total:
        found.append(f"{good} of {total} instructions executed or idle with a reason")
    for (module, kernel), rows in sorted(table.items()):
        if module.startswith("library:") and not any(ran for _, ran in rows):
            found.append(f"never launched: {kernel}")
    return found


def _merged() -> Table:
    table = _of_this_process()
    merge(table, _workers)
    return table


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        # A worker process hands its table to the controller as plain lists.
        output["ptx_coverage"] = [[*key, rows] for key, rows in _of_this_process().items()]
    elif session.config.getoption(OPTION) and defects(_merged()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    table, detail = _merged(), os.environ.get("RNK_EMULATOR_COVERAGE", "")
    for line in report(table, detail):
        terminalreporter.write_line(line)
    if terminalreporter.config.getoption(OPTION):
        for line in defects(table):
            terminalreporter.write_line(f"PTX coverage: {line}")
    if detail == "idle":
        idle, good, total = source_coverage.idle_lines(_modules(table))
        terminalreporter.write_line(f"{good} of {total} executed or idle with a reason")
        for key, kernels in sorted(idle.items()):
            terminalreporter.write_line(f"idle in {len(kernels):3} kernels: {key}")
