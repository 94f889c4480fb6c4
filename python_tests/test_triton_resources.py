"""The default tiles of the Triton kernels spill nothing; docs/resources_triton.md is current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import triton

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "triton_resources.py"
TABLE = ROOT / "docs" / "resources_triton.md"


def test_no_spills_in_the_table():
    """For every architecture; the last column is bytes spilled."""
    rows = [line for line in TABLE.read_text().splitlines() if "| sm_" in line]
    assert {row.split("|")[3].strip() for row in rows} == {"sm_80", "sm_90", "sm_100"}
    assert [row for row in rows if not row.endswith("| 0 |")] == []


def test_table_is_current():
    """On sm_80; another Triton gives other registers, but may spill no more than this one."""
    command = [sys.executable, str(TOOL), "--check", "80"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "no spills" in done.stdout, done.stdout + done.stderr
    if f"Triton {triton.__version__} " in TABLE.read_text():
        assert done.returncode == 0, done.stdout + done.stderr
