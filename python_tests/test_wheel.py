"""What a wheel holds, packed from the built tree without compiling, works elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import check_wheel  # noqa: E402


def test_the_packed_tree_is_whole_and_works_elsewhere(tmp_path: Path) -> None:
    packed, elsewhere = tmp_path / "packed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["build_py", "--build-lib", str(packed)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "RNK_SKIP_CUDA": "1"}, check=True)
    held = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    assert check_wheel.expected_files() - held == set()
    environment = {**os.environ, "PYTHONPATH": str(packed), "OMP_NUM_THREADS": "1"}
    check_wheel.use([sys.executable], elsewhere, environment)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name in check_wheel.expected_files() - {"resnet_kernels/py.typed"}:
            file.writestr(name, "")
        file.writestr("csrc/toolchain.py", "")
    with pytest.raises(SystemExit, match=r"missing \['resnet_kernels/py.typed'\].*csrc/toolchain"):
        check_wheel.check_contents(wheel)
