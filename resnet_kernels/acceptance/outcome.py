"""What a part of the acceptance run is given, and what it hands back."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..ops import library

ROOT = Path(__file__).resolve().parents[2]

# Test backend (python_tests/backends.py) -> the ops' `backend` argument.
REAL = {"cuda": "native", "triton": "triton"}
EMULATED = {"cuda-emulated": "emulated", "triton-emulated": "triton-emulated"}


@contextlib.contextmanager
def default_backend(name: str) -> Iterator[None]:
    """Inside, public ops that are told no backend run on this one."""
    before = library.set_default_backend(name)
    try:
        yield
    finally:
        library.set_default_backend(before)


class CannotRun(Exception):
    """A part misses what it needs; the message says what."""


@dataclasses.dataclass(frozen=True)
class Context:
    """How a part runs.

    dry: on the emulator at small sizes. inject: its check compares with a wrong value, and must
    fail. folder: for what it writes. arch: compute capability of the GPU, such as "90".
    """

    dry: bool
    inject: bool
    folder: Path
    arch: str = ""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def backends(self) -> dict[str, str]:
        """Test backend -> the ops' `backend` argument, CUDA's first."""
        return EMULATED if self.dry else REAL


@dataclasses.dataclass
class Outcome:
    """What a part found.

    counts: of tests or checks by result. figures: numbers worth keeping. needs_gpu: what the part
    does on a GPU and could not do here. reason: of a failure or an absence, one line.
    """

    passed: bool
    reason: str = ""
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    needs_gpu: list[str] = dataclasses.field(default_factory=list)
    absent: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """A part: it has `limit` seconds on a GPU, `dry_limit` in a dry run."""

    name: str
    title: str
    run: Callable[[Context], Outcome]
    limit: float = 480.0
    dry_limit: float = 120.0


class Checks:
    """Counts checks and keeps the first that failed."""

    def __init__(self) -> None:
        self.outcome = Outcome(True, counts={"passed": 0, "failed": 0})

    def add(self, name: str, good: bool, detail: str = "") -> None:
        """A check's result, printed into the part's log."""
        text = f"{name}: {detail}" if detail else name
        print(f"{'ok' if good else 'FAILED'}  {text}", flush=True)
        self.outcome.counts["passed" if good else "failed"] += 1
        if not good and self.outcome.passed:
            self.outcome.passed, self.outcome.reason = False, text
