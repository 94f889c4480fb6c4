"""Runs the one built binary on the oldest supported torch, on a CPU build and on the newest.

Each torch gets a virtual environment of its own under .abi/; nothing is compiled in them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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
    return subprocess.call([python, str(ROOT / "tools" / "abi_smoke.py")], env=environment)


def main() -> int:
    """Runs all versions; 1 if any fails."""
    failed = [name for name, requirement in REQUIREMENTS.items() if run(name, requirement)]
    print(f"abi: failed on {', '.join(failed)}" if failed else "abi: all versions pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
