"""Runs every per-op bench, then prints the bytes model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Each in a process of its own, with this one's arguments; the first failure ends it."""
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        command = [sys.executable, "-m", f"benchmarks.{path.stem}", *sys.argv[1:]]
        if code := subprocess.run(command).returncode:
            return code
    return subprocess.run([sys.executable, "-m", "benchmarks.bytes_model"]).returncode


if __name__ == "__main__":
    sys.exit(main())
