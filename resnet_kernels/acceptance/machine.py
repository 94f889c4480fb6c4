"""Where and with what the acceptance run runs: device, versions, commit, sources."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from ..bench.report import commit, device_name
from .outcome import ROOT

# Whatever a part runs.
FOLDERS = ("csrc", "resnet_kernels", "python_tests", "benchmarks", "tools")
SUFFIXES = {".py", ".cpp", ".h", ".cu", ".cuh", ".txt"}
PACKAGES = ("triton", "pytest", "pytest-xdist", "numpy", "scikit-learn")


def is_checkout() -> bool:
    """Whether the package lies beside its tests and sources."""
    return all((ROOT / folder).is_dir() for folder in FOLDERS) and (ROOT / "setup.py").is_file()


def sources_digest() -> str:
    """Of every file of the checkout that a part runs or builds, committed or not."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    found = [ROOT / "setup.py", ROOT / "pyproject.toml"]
    for folder in FOLDERS:
        found += (path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    return sorted(path for path in found if path.is_file())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """Of Python, torch and what comes with it, and the packages the parts use."""
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        **{package: _version(package) for package in PACKAGES},
    }
    if torch.cuda.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def device(dry: bool) -> dict[str, Any]:
    """Name, and of a GPU its architecture, multiprocessors and memory."""
    if dry:
        return {"name": device_name(torch.device("cpu")), "cores": os.cpu_count() or 1}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "arch": f"{properties.major}{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
    }


def describe(dry: bool) -> dict[str, Any]:
    """All of it, as the report has it."""
    return {
        "commit": commit(),
        "sources": sources_digest(),
        "device": device(dry),
        "versions": versions(),
    }
