"""CUDA kernels on the emulator, host launch code included: what active() does and counts."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from resnet_kernels import emulator
from resnet_kernels.ops import bn_act


def test_active_sends_public_ops_through_the_cuda_kernels(rng) -> None:
    y = torch.randn(2, 16, 6, 6, generator=rng).contiguous(memory_format=torch.channels_last)
    vectors = [torch.rand(16, generator=rng) + 0.5 for _ in range(4)]
    plain = bn_act(y, *vectors)
    with emulator.active(seed=3) as run:
        emulated = bn_act(y, *vectors)
    torch.testing.assert_close(emulated, plain, rtol=1e-5, atol=1e-6)
    assert len(run.kernels) == 2 and any("bn_affine" in name for name in run.kernels)
    ((launches, counters),) = [v for k, v in run.kernels.items() if "bn_act_fwd_rows" in k]
    assert launches == 1
    assert counters.distinct_bytes_written == y.numel() * 4
    with emulator.active() as run:
        pass
    assert run.kernels == {}
    assert not emulator.is_active()


def test_active_is_scoped_and_reports_its_launches():
    assert not emulator.is_active()
    with pytest.raises(KeyError), emulator.active(seed=3) as run:
        assert emulator.is_active()
        raise KeyError
    assert not emulator.is_active()
    assert run.kernels == {}


def test_kernels_never_launched_count_as_zero() -> None:
    script = """
from resnet_kernels import emulator
table = emulator.coverage()
assert len(table) >= 8 and any("bn_act_fwd" in name for name in table), table
assert all(executed == 0 and total > 50 for executed, total in table.values()), table
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_library_exports_no_runtime_symbol_and_runs_beside_cuda_torch() -> None:
    names = subprocess.check_output(
        ["nm", "-D", "--defined-only", emulator._native.__file__], text=True
    )
    assert "PyInit__emulator" in names
    assert not [line for line in names.splitlines() if "cuda" in line.split()[-1].lower()]
