"""The PTX texts inside the library: their kernels, lines, and the source lines behind them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from resnet_kernels import emulator

ROOT = Path(__file__).resolve().parents[2]
ENTRY = re.compile(r"\.entry (\w+)\(")
FILE = re.compile(r'^\s*\.file\s+(\d+) "(.*)"')
LOC = re.compile(r"^\s*\.loc\s+(\d+) (\d+)")
# nvcc names a file's internal linkage by digests of path and contents: the parts that differ
# between two compilations of one source.
INTERNAL = re.compile(r"_GLOBAL__N__([0-9a-f]{8})_(\d+_\w+?_cu)_([0-9a-f]{8})")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Lines [first, end) of a text, counted from 0."""

    name: str
    first: int
    end: int


class Text:
    """A module of the library."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.ptx: str = module.ptx
        self.digest = digest(self.ptx)
        self.lines = self.ptx.split("\n")

    @functools.cached_property
    def kernels(self) -> list[Kernel]:
        starts = [(i, m[1]) for i, line in enumerate(self.lines) if (m := ENTRY.search(line))]
        found = []
        for first, name in starts:
            end = next(i for i in range(first, len(self.lines)) if self.lines[i].startswith("}"))
            found.append(Kernel(name, first, end))
        return found

    @functools.cached_property
    def sources(self) -> list[tuple[str, int] | None]:
        """The innermost source line of every PTX line; None outside csrc/cuda."""
        files: dict[str, str] = {}
        for line in self.lines:
            if m := FILE.match(line):
                path = re.sub(r".*/(csrc/cuda/\w+\.\w+)$", r"\1", m[2])
                files[m[1]] = path if path.startswith("csrc/cuda/") else ""
        at: tuple[str, int] | None = None
        found = []
        for line in self.lines:
            if m := LOC.match(line):
                path, number = files.get(m[1], ""), int(m[2])
                at = (path, number) if path and number else None
            elif ENTRY.search(line):
                at = None
            found.append(at)
        return found

    @functools.cached_property
    def by_source(self) -> dict[tuple[str, int], set[int]]:
        """PTX lines, counted from 1, of every source line."""
        found: dict[tuple[str, int], set[int]] = defaultdict(set)
        for number, at in enumerate(self.sources, 1):
            if at:
                found[at].add(number)
        return found

    @functools.cached_property
    def entries(self) -> frozenset[str]:
        return entries(self.ptx)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def entries(ptx: str) -> frozenset[str]:
    """Names of the kernels, without the digests that differ between compilations."""
    return frozenset(INTERNAL.sub(r"_\2_", name) for name in ENTRY.findall(ptx))


def with_names_of(text: str, original: str) -> str:
    """A new compilation's text under the kernel names that the library's host code launches."""
    names = {m[2]: m[0] for m in INTERNAL.finditer(original)}
    return INTERNAL.sub(lambda m: names.get(m[2], m[0]), text)


def instructions(ptx: str) -> str:
    """What remains when comments, layout and lines for debuggers are left out."""
    kept = []
    for line in INTERNAL.sub(r"_\2_", ptx).split("\n"):
        code = " ".join(line.split("//")[0].split())
        if code.startswith(".section"):
            break
        if code and not code.startswith((".loc", ".file")):
            kept.append(code)
    return "\n".join(kept)


@functools.cache
def library() -> dict[str, Text]:
    """The library's modules that have kernels, by digest."""
    texts = (Text(m) for m in emulator._native.modules() if m.embedded and m.kernels)
    return {text.digest: text for text in texts}
