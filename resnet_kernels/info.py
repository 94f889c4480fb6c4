"""What this installation is: versions, devices, kernel libraries, and why one is absent."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

from . import __version__, _native
from .ops import library
from .ops.schemas import SCHEMAS


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    devices = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        devices.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    return devices


def _library(name: str, status: _native.Status) -> dict[str, Any]:
    native = [
        op
        for op in SCHEMAS
        if library.has_native_kernel(op, name) and not (name == "cuda" and library.triton_fills(op))
    ]
    entry: dict[str, Any] = {"loaded": status.loaded, **status.build}
    if status.reason:
        entry["reason"] = status.reason
    entry["kernels"] = native
    entry["fallback"] = [op for op in SCHEMAS if op not in native]
    return entry


def _triton() -> dict[str, Any]:
    """Triton is no library of ours to load: its kernels are compiled at their first call."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return {"loaded": False, "reason": "not installed", "kernels": [], "fallback": [*SCHEMAS]}
    filled = [op for op in SCHEMAS if library.triton_fills(op)]
    return {
        "loaded": True,
        "version": version,
        "interpreted": library.triton_interpreted(),
        "kernels": list(SCHEMAS),
        "fallback": [],
        "default on a GPU for": filled,
    }


def collect() -> dict[str, Any]:
    """Everything `resnet-kernels info` prints, as plain data."""
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith("RNK_")}
    return {
        "resnet_kernels": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda or "none",
        "platform": f"{platform.system()} {platform.machine()}",
        "CPU": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "GPUs": _gpus(),
        "backend": library.default_backend(),
        "libraries": {
            **{name: _library(name, s) for name, s in _native.status().items()},
            "triton": _triton(),
        },
        "environment": variables,
    }


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def render(data: dict[str, Any] | None = None) -> str:
    """`collect()` as text, a fact a line."""
    data = collect() if data is None else data
    lines = []
    for key, value in data.items():
        if key == "libraries":
            for name, entry in value.items():
                lines.append(f"library {name}: {'loaded' if entry['loaded'] else 'absent'}")
                lines += [f"  {k}: {_value(v)}" for k, v in entry.items() if k != "loaded"]
        elif isinstance(value, dict):
            lines += [f"{k}={v}" for k, v in value.items()]
        else:
            lines.append(f"{key}: {_value(value)}")
    return "\n".join(lines)
