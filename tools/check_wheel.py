"""Builds a wheel from the source distribution and uses it with the sources hidden.

The wheel is installed in a virtual environment of its own, outside of the checkout, that borrows
torch and the other dependencies of this interpreter. RNK_SKIP_CUDA=1 or RNK_CUDA_ARCHS=80 make the
build shorter. Exits with an error at the first thing that is wrong.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EPOCH = ("train", "--epochs", "1", "--threads", "1", "--out", "run")


def build(folder: Path) -> Path:
    """The wheel, built from the source distribution alone."""
    hook = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"
    subprocess.check_call([sys.executable, "-c", hook, str(folder)], cwd=ROOT, stdout=sys.stderr)
    (sdist,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    subprocess.check_call([*pip, "-w", str(folder), str(sdist)], cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def expected_files() -> set[str]:
    """What every wheel has to hold of the package."""
    command = ["git", "ls-files", "resnet_kernels"]
    tracked = subprocess.check_output(command, cwd=ROOT, text=True).split()
    return {*tracked, *(f"resnet_kernels/{n}" for n in ("_build.json", "_cpu.so", "_emulator.so"))}


def check_contents(wheel: Path) -> None:
    """The package whole, and nothing beside it.

    Raises: SystemExit naming the files.
    """
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    missing = expected_files() - held
    more = held - expected_files() - {"resnet_kernels/_cuda.so"}
    if missing or more:
        raise SystemExit(f"{wheel.name}: missing {sorted(missing)}, should not hold {sorted(more)}")


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment with the wheel; its folder of programs."""
    venv.create(folder, with_pip=False)
    programs = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "-q"]
    subprocess.check_call([*pip, "--no-deps", str(wheel)])
    # A plain path: what this interpreter has installed as editable is not followed from there.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def use(python: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Runs the smoke test and an epoch of the command line in a folder without sources."""
    script = shutil.copy(ROOT / "tools/wheel_smoke.py", folder)
    for arguments in ([str(script), str(ROOT)], ["-m", "resnet_kernels", *EPOCH]):
        subprocess.check_call([*python, *arguments], cwd=folder, env=environment)
    for name in ("last.pt", "metrics.csv", "curves.png"):
        if not (folder / "run" / name).exists():
            raise SystemExit(f"train: {name} was not written")


def main() -> int:
    """0, or an exception."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_contents(wheel)
        programs = install(wheel, folder / "env")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        (folder / "elsewhere").mkdir()
        use([str(programs / "python")], folder / "elsewhere", environment)
        subprocess.check_call([str(programs / "resnet-kernels"), "info"], env=environment)
        size = wheel.stat().st_size / 1e6
        print(f"{wheel.name}: {size:.1f} MB, works without its sources")
    return 0


if __name__ == "__main__":
    sys.exit(main())
