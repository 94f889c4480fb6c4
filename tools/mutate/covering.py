"""Which PTX lines each test of the emulated kernels executes, and how long the test takes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from resnet_kernels import emulator

from .texts import ROOT, Text, digest, library

FOLDER = ROOT / "build/mutate"


@dataclasses.dataclass
class Covered:
    """seconds: of CPU; lines: by module and first line of a kernel, bit i for the i-th after it."""

    seconds: float
    lines: dict[str, int]

    def has(self, masks: dict[str, int]) -> bool:
        """Whether a line of `masks`, which has the form of `lines`, is among these."""
        return any(self.lines.get(kernel, 0) & bits for kernel, bits in masks.items())


def masks_of(text: Text, lines: set[int]) -> dict[str, int]:
    """PTX lines, counted from 1, in the form of Covered.lines."""
    masks: dict[str, int] = defaultdict(int)
    for kernel in text.kernels:
        for line in lines:
            if kernel.first < line <= kernel.end:
                masks[f"{text.digest}:{kernel.first}"] |= 1 << (line - kernel.first)
    return masks


def masks_of_kernels(text: Text, lines: set[int]) -> dict[str, int]:
    """All lines of the kernels that have one of these."""
    touched = (k for k in text.kernels if any(k.first < line <= k.end for line in lines))
    return {f"{text.digest}:{kernel.first}": -1 for kernel in touched}


def is_emulated(item: pytest.Item) -> bool:
    """By the parameter of each_backend or by a fixture of this name."""
    return "emulated" in item.name or "emulated" in getattr(item, "fixturenames", ())


def failure(item: pytest.Item, following: pytest.Item | None = None) -> str | None:
    """Runs a test; the last line of its report if it failed."""
    for report in runtestprotocol(item, nextitem=following, log=False):
        if report.failed:
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            return (lines or ["failed"])[-1].removeprefix("E ").strip()[:200]
    return None


def executed() -> dict[str, int]:
    """What ran since the coverage was forgotten."""
    found = {}
    for text in library().values():
        first = {kernel.name: kernel.first for kernel in text.kernels}
        for name in text.module.launched():
            bits = 0
            for line in {line for line, warps, _ in text.module.coverage(name) if warps}:
                bits |= 1 << (line - first[name])
            found[f"{text.digest}:{first[name]}"] = bits
        text.module.forget_coverage()
    return found


@contextlib.contextmanager
def without_detectors() -> Iterator[None]:
    """The emulator is several times faster so, and what executes is the same."""
    native = emulator._native
    before = native.set_options
    native.set_options = lambda seed, _races, _memory, most, threads: before(
        seed, False, False, most, threads
    )
    yield
    native.set_options = before


def measure(items: list[pytest.Item]) -> dict[str, Covered]:
    """Runs the tests; those that fail without any break kill nothing and are left out."""
    executed()
    found = {}
    with without_detectors():
        for item, following in zip(items, [*items[1:], None], strict=True):
            start = time.process_time()
            failed = failure(item, following)
            seconds = time.process_time() - start
            lines = executed()
            if failed is None and lines:
                found[item.nodeid] = Covered(seconds, lines)
    return found


def _cache(items: list[pytest.Item]) -> Path:
    """The file for the tests of one file: it depends on them, on what they import and the PTX."""
    path = items[0].path
    helpers = [p for p in (ROOT / "python_tests").rglob("*.py") if not p.name.startswith("test_")]
    texts = [p.read_text() for p in [path, *sorted(helpers)]]
    state = digest("".join([*texts, *sorted(library()), *(item.nodeid for item in items)]))
    return FOLDER / f"coverage-{path.stem}-{state}.json"


def load(items: Iterable[pytest.Item]) -> tuple[dict[str, Covered], list[list[pytest.Item]]]:
    """Coverage known from earlier runs, and the files whose tests are yet to run."""
    files = defaultdict(list)
    for item in items:
        files[item.path].append(item)
    known: dict[str, Covered] = {}
    unknown = []
    for group in files.values():
        if not _cache(group).exists():
            unknown.append(group)
            continue
        for nodeid, (seconds, lines) in json.loads(_cache(group).read_text()).items():
            known[nodeid] = Covered(seconds, {k: int(v, 16) for k, v in lines.items()})
    return known, unknown


def save(items: list[pytest.Item], covered: dict[str, Covered]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = {
        nodeid: (c.seconds, {k: f"{v:x}" for k, v in c.lines.items()})
        for nodeid, c in covered.items()
    }
    _cache(items).write_text(json.dumps(rows))
