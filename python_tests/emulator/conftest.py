"""Prints the PTX coverage of the run; RNK_EMULATOR_COVERAGE=1 lists every kernel."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("resnet_kernels._emulator", reason="the emulator was not built")


def pytest_terminal_summary(terminalreporter):
    from resnet_kernels import emulator

    table = emulator.coverage()
    executed = sum(e for e, _ in table.values())
    total = sum(t for _, t in table.values())
    idle = sum(e == 0 for e, _ in table.values())
    terminalreporter.write_line(
        f"PTX coverage: {executed} of {total} instructions in {len(table)} kernels, {idle} idle"
    )
    if os.environ.get("RNK_EMULATOR_COVERAGE"):
        for name, (e, t) in sorted(table.items()):
            terminalreporter.write_line(f"  {e:6} of {t:6}  {name}")
