"""The CPU kernels of every instruction set that this processor has, each in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bn_cases import GELU, OPS

TESTS = Path(__file__).parent
# What depends on the vectors, in one layout: every dtype, of convolutions fp32.
VECTORS = ("bn_stats", "bn_act_fwd", "bn_act_bwd_reduce", "bn_bwd_apply", "pool_kernels")
CONVOLUTIONS = ("conv_fwd", "conv_dgrad", "conv_wgrad")
# Every shape of bf16 convolutions by integers, and what rounds or leaves bits in a few.
BF16 = "bf16 and cpu and (integers or epilogue or acts or (bn_definition and recomputed))"
SELECTION = (
    "not nchw and not deterministic and not refuses and not huge and not same_bits"
    " and not (conv and (fp16 or bf16 or fp64))"
)


def run(isa: str, *command: str) -> str:
    env = {**os.environ, "RNK_CPU_ISA": isa, "OMP_NUM_THREADS": "1", "RNK_TEST_BACKENDS": "cpu"}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if isa in ("avx2", "amx"):
        env["RNK_CPU_L2"] = "128"  # the smallest blocks too
    done = subprocess.run(
        [sys.executable, *command], env=env, cwd=TESTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, f"RNK_CPU_ISA={isa}\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
    return done.stdout


def flags() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text() if cpuinfo.exists() else ""


# By rank, the flag that the next one needs: what a plain run takes is tested by the files
# themselves.
NEXT = {
    "baseline": "avx2",
    "avx2": "avx512vl",
    "avx512": "avx512_bf16",
    "avx512_bf16": "amx_bf16",
    "amx": "none",
}
OTHERS = [isa for isa in ("baseline", "avx2") if NEXT[isa] in flags()]
OTHERS_IN_BF16 = [isa for isa, flag in NEXT.items() if flag in flags()]
# AMX multiplies fp32 as well: AVX-512 no longer does in a plain run, and small blocks are rare.
OTHERS_OF_TILES = ["avx512_bf16", "amx"] if NEXT["avx512_bf16"] in flags() else []


def run_tests(isa: str, selection: str, names: tuple[str, ...]) -> int:
    """Runs them, and looks whether the variable chose; how many passed."""
    files = [str(TESTS / f"test_{name}.py") for name in names]
    options = ["-x", "-p", "no:cacheprovider", "-p", "no:ptx_coverage", "-k", selection, *files]
    command = (
        "import sys, pytest, torch, resnet_kernels; "
        f"assert torch.ops.resnet_kernels.cpu_isa() == {list(NEXT).index(isa)}; "
        f"sys.exit(pytest.main({options}))"
    )
    passed = run(isa, "-c", command)
    return int(passed.split(" passed")[0].split()[-1])


@pytest.mark.parametrize("isa", OTHERS)
def test_kernels(isa):
    assert run_tests(isa, SELECTION, (*VECTORS, *CONVOLUTIONS)) > 500


@pytest.mark.parametrize("isa", OTHERS_OF_TILES)
def test_convolutions(isa):
    assert run_tests(isa, SELECTION, (*CONVOLUTIONS, "split")) > 500


@pytest.mark.parametrize("isa", OTHERS_IN_BF16)
def test_bf16_convolutions(isa):
    assert run_tests(isa, BF16, CONVOLUTIONS) > 100


def gelu_sum() -> str:
    """Some last bits: gelu uses fused multiply-add where there is one."""
    y = torch.linspace(-3, 3, 4096).view(1, 16, 16, 16)
    z = OPS.bn_act_fwd(y, torch.ones(16), torch.zeros(16), None, None, None, GELU, 0.0)
    return float(z.double().sum()).hex()


@pytest.mark.skipif("avx2" not in flags(), reason="only one instruction set here")
def test_the_variable_chooses():
    command = "import sys; sys.path.insert(0, 'python_tests'); import test_cpu_isa as t; "
    baseline = run("baseline", "-c", command + "print(t.gelu_sum())").strip()
    assert baseline != gelu_sum()
