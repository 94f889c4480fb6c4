"""Runs the one built binary on the oldest supported torch, on a CPU build and on the newest.

Each torch gets a virtual environment of its own under .abi/. The bindings must compile with the
headers of each, too: they are what a build from source uses.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from csrc import toolchain  # noqa: E402

INCLUDES = "from torch.utils.cpp_extension import include_paths; print(*include_paths())"
REQUIREMENTS = {"oldest": "torch==2.10.*", "cpu": "torch==2.13.0", "newest": "torch"}


def run(name: str, requirement: str) -> int:
    """Installs one torch and runs the smoke test under it; the exit status."""
    folder = ROOT / ".abi" / name
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.check_call([python, "-m", "pip", "install", "-q", requirement, "numpy"])
        (folder / ".ready").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    smoke = subprocess.call([python, str(ROOT / "tools" / "abi_smoke.py")], env=environment)
    return smoke or compile_bindings(python)


def compile_bindings(python: Path) -> int:
    """Checks the syntax of all bindings against a torch's headers; the exit status."""
    found = subprocess.check_output([python, "-c", INCLUDES], text=True).split()
    sources = toolchain.cpu_sources(ROOT)
    if cuda := toolchain.find_cuda()[0]:
        sources += toolchain.cuda_sources(ROOT, f"-isystem {cuda.include}")
    for source in sources:
        if source.path.is_relative_to(ROOT / "csrc/torch"):
            flags = [*toolchain.CXX_FLAGS.split(), "-Werror", *source.flags.split()]
            flags += [f"-isystem{path}" for path in found]
            command = [os.environ.get("CXX", "g++"), *flags, "-fsyntax-only", str(source.path)]
            if status := subprocess.call(command):
                return status
    return 0


def main() -> int:
    """Runs all versions; 1 if any fails."""
    failed = [name for name, requirement in REQUIREMENTS.items() if run(name, requirement)]
    print(f"abi: failed on {', '.join(failed)}" if failed else "abi: all versions pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
