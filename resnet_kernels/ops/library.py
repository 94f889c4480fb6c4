"""Registration: the primitives of one namespace per backend, with fake kernels and fallbacks.

A primitive without a native kernel for its device runs the function of `ops/fallback.py`. Those in
`DECLARED` (torch's convolution) are part of the design; all are counted, and `RNK_STRICT=1` turns
any other one into an error. On the CPU the declared ones are compiled (csrc/torch/conv_aten.cpp):
the same calls of torch's convolution without the time in Python.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _native
from .fakes import FAKES
from .fallback import DECLARED, FALLBACKS
from .schemas import SCHEMAS

# "emulated": the CUDA kernels on CPU tensors, loaded by resnet_kernels.emulator.
NAMESPACES = {"native": "resnet_kernels", "emulated": "resnet_kernels_emulated"}

_default_backend = os.environ.get("RNK_BACKEND") or "native"
_libraries: list[torch.library.Library] = []
_fallback_calls: Counter[str] = Counter()


def fallback_counts(reset: bool = False) -> dict[str, int]:
    """Calls, by primitive, that ran a plain-torch fallback since the start or the last reset."""
    counts = dict(_fallback_calls)
    if reset:
        _fallback_calls.clear()
    return counts


def undeclared_fallbacks(counts: dict[str, int]) -> dict[str, int]:
    """The part of `fallback_counts()` that is not the declared torch convolution."""
    return {name: calls for name, calls in counts.items() if name not in DECLARED}


def strict() -> bool:
    """Whether RNK_STRICT=1 forbids fallbacks other than the declared ones."""
    return os.environ.get("RNK_STRICT", "0") not in ("", "0")


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def fallback(*args: Any) -> Any:
        if name not in DECLARED and strict():
            device = next((a.device for a in args if isinstance(a, Tensor)), "this device")
            raise RuntimeError(
                f"RNK_STRICT=1: resnet_kernels::{name} has no native kernel for {device} in this "
                "installation (see `resnet-kernels info`)"
            )
        _fallback_calls[name] += 1
        return function(*args)

    return fallback


def _define(namespace: str) -> None:
    library = torch.library.Library(namespace, "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, _counted(name, FALLBACKS[name]), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{namespace}::{name}", FAKES[name], lib=library)
    _libraries.append(library)


def has_native_kernel(name: str, device_type: str) -> bool:
    """Whether a kernel of ours, and not a fallback, serves `name` on this device type."""
    if device_type == "cpu" and name in DECLARED:
        return False
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"{NAMESPACES['native']}::{name}", key
    )


def namespace(backend: str | None = None) -> Any:
    """torch.ops namespace of a backend; None takes the default one.

    Raises: ValueError for a name that is not a backend.
    """
    name = backend or _default_backend
    if not isinstance(name, str) or name not in _namespaces:
        raise ValueError(f"backend: expected one of {sorted(NAMESPACES)}, got {name!r}")
    return _namespaces[name]


def default_backend() -> str:
    """RNK_BACKEND, read at import, or "native"; what set_default_backend said last."""
    return _default_backend


def set_default_backend(backend: str) -> str:
    """Makes a backend the default of ops that start from now on; returns the one before."""
    global _default_backend
    namespace(backend)
    before, _default_backend = _default_backend, backend
    return before


for _name in NAMESPACES.values():
    _define(_name)
_namespaces = {backend: getattr(torch.ops, name) for backend, name in NAMESPACES.items()}
_native.load()
