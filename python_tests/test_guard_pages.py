"""No CPU convolution reads before or behind a tensor's memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conv_cases import SHAPES
from test_cpu_isa import OTHERS, OTHERS_IN_BF16

TESTS = Path(__file__).parent
OPS_EACH = 6


def run(*command: str, isa: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RNK_CPU_CONV": "own", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
    if isa:
        env["RNK_CPU_ISA"] = isa
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=TESTS.parent, capture_output=True, text=True
    )


CASES = [("float32", isa) for isa in ["", *OTHERS]]
CASES += [("bfloat16", isa) for isa in ["", *OTHERS_IN_BF16]]


@pytest.mark.parametrize(("dtype", "isa"), CASES, ids=lambda word: word or "best")
def test_convolutions(dtype: str, isa: str) -> None:
    done = run(str(TESTS / "guard_pages.py"), dtype, isa=isa)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 2 * OPS_EACH * len(SHAPES)


@pytest.mark.parametrize("index", [-1, 64])
def test_the_guards_hold(index: int) -> None:
    code = f"""
import torch, ctypes, guard_pages
t = guard_pages.guarded(torch.zeros(64), {index > 0})
print(ctypes.c_float.from_address(t.data_ptr() + 4 * {index}).value)
"""
    assert run("-c", code).returncode == -signal.SIGSEGV
