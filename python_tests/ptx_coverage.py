"""Prints the PTX coverage of a test run, summed over the processes of pytest-xdist.

RNK_EMULATOR_COVERAGE=kernels lists every kernel of the library, =lines unexecuted PTX lines too.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

# (module, kernel) -> (PTX line, executed?) of each instruction
Table = dict[tuple[str, str], list[tuple[int, bool]]]
_workers: Table = {}


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


# A worker process hands its table to the controller as plain lists.
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ptx_coverage"] = [[*key, rows] for key, rows in _of_this_process().items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    rows = getattr(node, "workeroutput", {}).get("ptx_coverage", [])
    merge(_workers, {(module, kernel): [tuple(r) for r in table] for module, kernel, table in rows})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    table = _of_this_process()
    merge(table, _workers)
    for line in report(table, os.environ.get("RNK_EMULATOR_COVERAGE", "")):
        terminalreporter.write_line(line)
