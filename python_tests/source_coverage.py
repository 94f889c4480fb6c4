"""Source lines of csrc/cuda whose instructions no test has executed, by the line tables in the PTX.

An instruction belongs to the innermost inlined line of csrc/cuda; code of CUDA's own headers
(erff, division) to the line that calls it. Lines that are idle in some kernel stand with their
reason in idle_lines.txt, as `file: text of the line | reason`; a file alone stands for all of it.
The first line names the nvcc that compiled them: another one unrolls and inlines otherwise.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
CUDA = HERE.parent / "csrc" / "cuda"
ALLOWED = HERE / "idle_lines.txt"
# Executed instructions over all, as the reasons in idle_lines.txt leave it.
REQUIRED = 0.95

_LOC = re.compile(r"\.loc\s+(\d+) (\d+) \d+(?:, function_name \S+, inlined_at (\d+) (\d+))?")
_FILE = re.compile(r"\.file\s+(\d+) \"(.*?)\"", re.MULTILINE)


@functools.lru_cache(maxsize=64)
def locations(ptx: str) -> list[tuple[str, int] | None]:
    """(file name in csrc/cuda, line) of each line of the PTX text."""
    files = {int(number): Path(path) for number, path in _FILE.findall(ptx)}
    ours = {number: path.name for number, path in files.items() if path.parent.name == "cuda"}
    found: list[tuple[str, int] | None] = []
    here = None
    callers: dict[tuple[int, int], tuple[int, int]] = {}
    for text in ptx.splitlines():
        if match := _LOC.search(text):
            place = int(match[1]), int(match[2])
            if match[3]:
                callers[place] = int(match[3]), int(match[4])
            for _ in range(16):
                if place[0] in ours or place not in callers:
                    break
                place = callers[place]
            here = (ours[place[0]], place[1]) if place[0] in ours else None
        found.append(here)
    return found


def list_is_for(cuda_version: str) -> bool:
    """Whether idle_lines.txt was made with this nvcc."""
    return ALLOWED.read_text().splitlines()[0].endswith(f"nvcc {cuda_version}")


def allowed() -> dict[str, str]:
    """What may be idle -> the reason: a file's name, or `name: text of the line`."""
    lines = ALLOWED.read_text().splitlines()
    entries = (line.rsplit(" | ", 1) for line in lines[1:] if " | " in line)
    return {key.strip(): reason.strip() for key, reason in entries}


@functools.lru_cache(maxsize=64)
def _source(name: str) -> list[str]:
    return (CUDA / name).read_text().splitlines()


def idle_lines(
    modules: Iterable[tuple[str, dict[str, list[tuple[int, bool]]]]],
) -> tuple[dict[str, set[str]], int, int]:
    """Lines with instructions that some kernel never executed.

    Args: modules: PTX text, and for each kernel (PTX line, executed?) of its instructions.
    Returns: `file: text` -> kernels; instructions executed, or idle with a reason; all.
    """
    reasons = allowed()
    idle: dict[str, set[str]] = defaultdict(set)
    good = total = 0
    for ptx, kernels in modules:
        places = locations(ptx)
        for kernel, rows in kernels.items():
            for line, executed in rows:
                total += 1
                place = places[line - 1] if line - 1 < len(places) else None
                name, number = place or ("?", 0)
                text = _source(name)[number - 1].strip() if place else "no line"
                key = f"{name}: {text}"
                if not executed:
                    idle[key].add(kernel)
                good += executed or key in reasons or name in reasons
    return dict(idle), good, total
