"""Triton kernels interpreted on numpy, in a session of its own: Triton reads the switch early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
# One dtype and layout of every op; the rest: TRITON_INTERPRET=1 python -m pytest -m full.
SHORT = [
    "test_triton_ops.py::test_bn_forward[fp32-nhwc]",
    "test_triton_ops.py::test_bn_backward[bf16-nchw]",
    "test_triton_ops.py::test_running_statistics_follow_torch[0.1]",
    "test_triton_ops.py::test_conv_fwd[N2-C17-H9-W6-K33-R3-s2-p1-bf16]",
    "test_triton_ops.py::test_conv_dgrad[N2-C17-H9-W6-K33-R3-s2-p1-fp32]",
    "test_triton_ops.py::test_conv_wgrad[N2-C17-H9-W6-K33-R3-s2-p1-bf16]",
    "test_triton_ops.py::test_pools[bf16-nchw]",
    "test_triton_ops.py::test_gradcheck_of_a_layer",
]


def test_short_list_in_a_session_of_its_own():
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [*command, *(str(TESTS / name) for name in SHORT)],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(SHORT)} passed" in done.stdout, done.stdout
