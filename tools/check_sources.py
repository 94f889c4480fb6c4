"""Checks no formatter makes: where torch is included, which libraries are called, file sizes.

Run by `make lint` and by pre-commit; prints one line per finding and exits with 1 if there is any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = {"python_tests": 500}
DEFAULT_MAX_LINES = 400

TORCH_INCLUDE = re.compile(r'#\s*include\s*[<"](torch|ATen|c10)/')
VENDOR_LIBRARY = re.compile(r"\b(cudnn|cublas|cutlass)", re.IGNORECASE)
TORCH_CONVOLUTION = re.compile(
    r"\bF\.conv\d?d?\b|functional\.conv\dd|torch\.conv\dd|aten\.(_?convolution|conv2d|mkldnn_conv)"
)
# The declared fallback and the definition may convolve with torch.
CONVOLUTION_ALLOWED = {"resnet_kernels/reference.py", "resnet_kernels/ops/fallback.py"}


def tracked_files() -> list[str]:
    """Paths, relative to the repository, of the files git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in output.splitlines() if (ROOT / path).is_file()]


def without_comments(path: str, line: str) -> str:
    """The line up to its comment."""
    return line.split("#" if path.endswith(".py") else "//")[0]


def findings(path: str, lines: list[str]) -> list[str]:
    """What is wrong with one source file."""
    found = []
    top = path.split("/")[0]
    limit = MAX_LINES.get(top, DEFAULT_MAX_LINES)
    if len(lines) > limit:
        found.append(f"{path}: {len(lines)} lines, at most {limit}")
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        code = line if TORCH_INCLUDE.search(line) else without_comments(path, line)
        if top == "csrc" and not path.startswith("csrc/torch/") and TORCH_INCLUDE.search(code):
            found.append(f"{where}: torch header outside csrc/torch")
        if top in ("csrc", "setup.py") and VENDOR_LIBRARY.search(code):
            found.append(f"{where}: the library must not use cuDNN, cuBLAS or CUTLASS")
        library = top == "resnet_kernels" and path not in CONVOLUTION_ALLOWED
        if library and TORCH_CONVOLUTION.search(code):
            found.append(f"{where}: torch convolution outside the declared fallback")
    return found


def main() -> int:
    """Prints the findings; 1 if there are any."""
    suffixes = (".py", ".cpp", ".h", ".cu", ".cuh")
    found: list[str] = []
    for path in tracked_files():
        if path.endswith(suffixes) and not path.startswith("tools/"):
            found += findings(path, (ROOT / path).read_text().splitlines())
    print("\n".join(found) if found else "sources: no findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
