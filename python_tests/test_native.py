"""The compiled libraries: loading, what is said when one is missing, strict mode, symbols."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resnet_kernels import _native, info
from resnet_kernels.ops import library
from resnet_kernels.ops.schemas import SCHEMAS

PACKAGE = Path(_native.__file__).parent
CUDA_BUILT = (PACKAGE / "_cuda.so").exists()
BN_ACT = "torch.ops.resnet_kernels.bn_act_fwd(x, s, b, None, None, None, 1, 0.0)"
SETUP = "import torch; x = torch.randn(2, 3, 4, 4); s = torch.ones(3); b = torch.zeros(3)\n"


def run(code: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python code in a fresh process, with the package of `folder` if one is given."""
    path = str(folder or PACKAGE.parent)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )


@pytest.fixture
def package_without_cpu(tmp_path: Path) -> Path:
    """A copy of the package that has no CPU library."""
    shutil.copytree(PACKAGE, tmp_path / "resnet_kernels", ignore=shutil.ignore_patterns("*.so"))
    return tmp_path


def test_cpu_library_serves_every_op_but_the_declared_fallback() -> None:
    missing = [op for op in SCHEMAS if not library.has_native_kernel(op, "cpu")]
    assert _native.status()["cpu"].loaded, _native.status()["cpu"].reason
    assert library.undeclared_fallbacks(dict.fromkeys(missing, 1)) == {}


def test_import_needs_torch_alone() -> None:
    heavy = ["torchvision", "matplotlib", "rich", "sklearn", "click", "typer", "safetensors"]
    heavy += ["torch._dynamo"]  # takes as long as torch itself
    code = "import sys, resnet_kernels, resnet_kernels.models\n"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_without_the_cpu_library_the_ops_run_on_plain_torch(package_without_cpu: Path) -> None:
    code = (
        f"{SETUP}import resnet_kernels\nfrom resnet_kernels import _native\n"
        f"from resnet_kernels.ops import library\n"
        f"assert torch.equal({BN_ACT}, x.relu())\n"
        "assert library.fallback_counts() == {'bn_act_fwd': 1}, library.fallback_counts()\n"
        "print(_native.status()['cpu'].reason)"
    )
    result = run(code, package_without_cpu)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "not built"


def test_strict_mode_forbids_an_undeclared_fallback(package_without_cpu: Path) -> None:
    code = f"{SETUP}import resnet_kernels.ops\n{BN_ACT}"
    result = run(code, package_without_cpu, RNK_STRICT="1")
    assert result.returncode != 0
    assert "RNK_STRICT=1: resnet_kernels::bn_act_fwd has no native kernel for cpu" in result.stderr


def test_a_broken_library_is_reported_and_import_works(package_without_cpu: Path) -> None:
    (package_without_cpu / "resnet_kernels" / "_cpu.so").write_bytes(b"not an ELF file")
    code = "import resnet_kernels.ops\nfrom resnet_kernels import info\nprint(info.render())"
    result = run(code, package_without_cpu)
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"library cpu: absent\n  reason: failed to load: ", result.stdout
    ) or re.search(r"library cpu: absent\n(  .*\n)*  reason: failed to load: ", result.stdout)


def test_a_cuda_library_of_another_major_version_is_not_loaded(package_without_cpu: Path) -> None:
    package = package_without_cpu / "resnet_kernels"
    (package / "_cuda.so").write_bytes(b"")
    (package / "_build.json").write_text(json.dumps({"cuda": {"cuda_version": "11.8"}}))
    code = "import resnet_kernels.ops as o; from resnet_kernels import _native as n\n"
    code += "print(n.status()['cuda'])"
    result = run(code, package_without_cpu)
    assert result.returncode == 0, result.stderr
    expected = "built with CUDA 11.8" if torch.version.cuda else "has no CUDA"
    assert "loaded=False" in result.stdout
    assert expected in result.stdout


@pytest.mark.skipif(not CUDA_BUILT, reason="no nvcc when this installation was built")
def test_cuda_library_registers_its_kernels_without_a_gpu() -> None:
    status = _native.status()["cuda"]
    if torch.version.cuda is None:
        assert status.reason == f"torch {torch.__version__} has no CUDA"
        return
    assert status.loaded, status.reason
    ops = [op for op in SCHEMAS if (PACKAGE.parent / f"csrc/cuda/{op}.cu").exists()]
    assert [op for op in ops if not library.has_native_kernel(op, "cuda")] == []
    assert "conv_fwd" in ops


@pytest.mark.skipif(not CUDA_BUILT, reason="no nvcc when this installation was built")
def test_no_cuda_symbol_is_exported_or_taken_from_elsewhere() -> None:
    nm = subprocess.run(["nm", "-D", PACKAGE / "_cuda.so"], capture_output=True, text=True)
    symbols = [line.split()[-1] for line in nm.stdout.splitlines()]
    assert "aoti_torch_get_current_cuda_stream" in symbols
    assert [name for name in symbols if re.match(r"_*cuda|cudnn|cublas", name)] == []


def test_info_names_every_part() -> None:
    text = info.render()
    for part in (
        "resnet_kernels:",
        "torch:",
        "torch CUDA:",
        "GPUs:",
        "library cpu:",
        "library cuda:",
    ):
        assert part in text
    data = info.collect()
    for name, entry in data["libraries"].items():
        assert entry["loaded"] or entry["reason"], name
        assert sorted(entry["kernels"] + entry["fallback"]) == sorted(SCHEMAS)
