"""bn_act_fwd.cu, host launch code included, on the emulator: against the CPU kernel and torch."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from resnet_kernels import emulator
from resnet_kernels.ops import bn_act
from resnet_kernels.ops.library import namespace

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
SHAPES = ((2, 64, 5, 7), (1, 8, 1, 1), (3, 17, 3, 5), (2, 1, 9, 4), (1, 2056, 2, 2), (0, 8, 2, 2))
EPS = {torch.float32: 1e-6, torch.float64: 1e-14, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("act", range(5))
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
def test_emulated_kernel_equals_the_cpu_kernel(dtype, layout, act, rng, repro) -> None:
    vector = torch.float64 if dtype == torch.float64 else torch.float32
    for shape, kind in itertools.product(SHAPES, ("alone", "residual", "dual")):
        # A slice of a larger tensor: odd shapes start where 16-byte loads are not allowed.
        y, r = (
            torch.randn((shape[0] + 1, *shape[1:]), generator=rng)
            .to(dtype)
            .contiguous(memory_format=FORMATS[layout])[1:]
            for _ in range(2)
        )
        scale, bias, scale2, bias2 = (
            torch.randn(shape[1], generator=rng).to(vector) for _ in range(4)
        )
        residual = None if kind == "alone" else r
        second = (scale2, bias2) if kind == "dual" else (None, None)
        args = (y, scale, bias, residual, *second, act, 0.1)
        z, mask = namespace("emulated").bn_act_fwd_mask(*args)
        expected, expected_mask = namespace("native").bn_act_fwd_mask(*args)
        assert z.stride() == expected.stride(), repro
        tolerance = EPS[dtype] * 8
        torch.testing.assert_close(z, expected, rtol=tolerance, atol=tolerance, msg=repro)
        differing = (mask ^ expected_mask).count_nonzero()
        # Fused and separate roundings may put a sum on either side of zero.
        assert differing <= z.numel() // 1000, repro
        assert torch.equal(z, namespace("emulated").bn_act_fwd(*args)), repro


def test_active_sends_public_ops_through_the_cuda_kernels(rng) -> None:
    y = torch.randn(2, 16, 6, 6, generator=rng).contiguous(memory_format=torch.channels_last)
    vectors = [torch.rand(16, generator=rng) + 0.5 for _ in range(4)]
    plain = bn_act(y, *vectors)
    with emulator.active(seed=3) as run:
        emulated = bn_act(y, *vectors)
    torch.testing.assert_close(emulated, plain, rtol=1e-5, atol=1e-6)
    assert len(run.kernels) == 1
    ((name, (launches, counters)),) = run.kernels.items()
    assert "bn_act_fwd_rows" in name
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
