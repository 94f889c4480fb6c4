"""Who runs a case: our backends, stock PyTorch eager in both layouts, torch.compile."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from resnet_kernels import _native
from resnet_kernels.bench.workload import COMPILED
from resnet_kernels.ops import library

from .cases import Case, in_layout

Call = Callable[[], Any]

# Provider -> backend.
OURS = {"cuda": "native", "triton": "triton", "cpu": "native"}
EAGER = {
    "eager": torch.contiguous_format,
    "eager_channels_last": torch.channels_last,
}
NAMES = (*OURS, *EAGER, *COMPILED)
DEFAULT = {
    "cuda": ("cuda", "triton", *EAGER, *COMPILED),
    # A layer takes torch.compile on a CPU some ten seconds; --providers asks for it.
    "cpu": ("cpu", *EAGER),
}


def unavailable(provider: str, device: torch.device, dtype: str) -> str:
    """Why a provider cannot run here; "" if it can."""
    if provider in ("cuda", "triton") and device.type != "cuda":
        return "there is no GPU here"
    if provider == "cpu" and device.type != "cpu":
        return "the tensors are on a GPU"
    if provider == "cuda" and not _native.status()["cuda"].loaded:
        return _native.status()["cuda"].reason
    if provider == "triton" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if dtype == "tf32" and device.type == "cpu":
        return "a CPU has no tf32"
    return ""


def call_of(provider: str, case: Case) -> Call:
    """What is timed."""
    if provider in OURS:
        namespace = library.namespace(OURS[provider])
        return lambda: case.run(namespace, *case.args)
    stock = in_layout(case.stock, EAGER.get(provider, torch.channels_last))
    function = case.eager
    if provider in COMPILED:
        function = torch.compile(case.eager, mode=COMPILED[provider], dynamic=False)
    return lambda: function(*stock)
