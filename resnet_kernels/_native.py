"""Finds and loads the compiled libraries; keeps the reason where one is absent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).parent
LIBRARIES = ("cpu", "cuda")


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether a library was loaded, or else the `reason`; `build` is what it was built with."""

    loaded: bool
    reason: str
    build: dict[str, Any]


_status: dict[str, Status] = {}


def status() -> dict[str, Status]:
    """Load status of every library, by name."""
    return dict(_status)


def _build_record() -> dict[str, Any]:
    path = _PACKAGE / "_build.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _why_not_loadable(name: str, build: dict[str, Any]) -> str | None:
    if name != "cuda":
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA"
    built, running = build.get("cuda_version", ""), torch.version.cuda
    if built.split(".")[0] != running.split(".")[0]:
        return f"built with CUDA {built}, torch has CUDA {running}: rebuild against this torch"
    return None


def _load_one(name: str, build: dict[str, Any]) -> Status:
    path = _PACKAGE / f"_{name}.so"
    if not path.exists():
        return Status(False, build.get("skipped", "not built"), build)
    if reason := _why_not_loadable(name, build):
        return Status(False, reason, build)
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return Status(False, f"failed to load: {str(error).splitlines()[0]}", build)
    return Status(True, "", build)


def load() -> None:
    """Loads every library that is there; never raises."""
    record = _build_record()
    for name in LIBRARIES:
        _status[name] = _load_one(name, record.get(name, {}))
