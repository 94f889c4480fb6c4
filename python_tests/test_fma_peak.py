"""fma_peak: how many operations it says it did, in which time, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_cpu_isa import OTHERS

from resnet_kernels.ops import library

ROOT = Path(__file__).parents[1]
LIKE = torch.empty(1)
SUMS = 12
LANES = {"baseline": 4, "avx2": 8, "avx512": 16}
# No processor begins more multiply-adds of a kind in a cycle, or runs faster.
MOST_IN_A_CYCLE, MOST_HZ = 4, 7e9


def fma_peak(rounds: int) -> float:
    return torch.ops.resnet_kernels.fma_peak(LIKE, rounds)


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def rates() -> list[float]:
    """Lanes, operations a second of fma_peak and of sgemm, both on one thread, in turn."""
    torch.set_num_threads(1)
    rounds, rows = 1 << 20, 512
    a, b = torch.randn(2, rows, rows)
    peak, product = [], []
    for _ in range(30):
        peak.append(seconds(lambda: fma_peak(rounds)))
        product.append(seconds(lambda: a @ b))
    lanes = fma_peak(1) / (2 * SUMS)
    return [lanes, fma_peak(rounds) / min(peak), 2 * rows**3 / min(product)]


def rates_of(isa: str | None) -> list[float]:
    """`rates` in a process of its own; None: the best instruction set that the processor has."""
    environment = {k: v for k, v in os.environ.items() if k != "RNK_CPU_ISA"}
    environment |= {"RNK_CPU_ISA": isa} if isa else {}
    code = "import sys; sys.path.insert(0, 'python_tests'); import test_fma_peak as t; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*t.rates())"],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(word) for word in done.stdout.split()]


def test_operations_are_those_of_rounds_and_threads() -> None:
    assert library.has_native_kernel("fma_peak", "cpu")
    torch.set_num_threads(1)
    lanes = fma_peak(1) / (2 * SUMS)
    assert lanes in LANES.values()
    assert fma_peak(0) == 0
    assert fma_peak(1000) == 2 * SUMS * lanes * 1000
    torch.set_num_threads(2)
    assert fma_peak(1000) == 2 * 2 * SUMS * lanes * 1000


def test_it_is_no_less_than_a_product_reaches_and_no_more_than_a_processor_can() -> None:
    lanes, peak, product = rates_of(None)
    assert 0.8 * product < peak < 2 * lanes * MOST_IN_A_CYCLE * MOST_HZ


@pytest.mark.parametrize("isa", OTHERS)
def test_each_instruction_set_has_its_lanes(isa: str) -> None:
    lanes, peak, _ = rates_of(isa)
    assert lanes == LANES[isa]
    assert 0 < peak < 2 * lanes * MOST_IN_A_CYCLE * MOST_HZ


def test_it_refuses_negative_rounds_and_other_devices() -> None:
    with pytest.raises(RuntimeError, match="rounds: expected 0 or more, got -1"):
        fma_peak(-1)
    with pytest.raises(NotImplementedError, match="fma_peak"):
        torch.ops.resnet_kernels.fma_peak(torch.empty(1, device="meta"), 1)
