"""Registration: the primitives of one namespace per backend, with fake kernels and fallbacks.

A primitive without a native kernel for its device runs the function of `ops/fallback.py`. Those in
`DECLARED` (torch's convolution) are part of the design; all are counted, and `RNK_STRICT=1` turns
any other one into an error.
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

NAMESPACES = {"native": "resnet_kernels"}

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
    """Whether a compiled kernel, and not a fallback, serves `name` on this device type."""
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"{NAMESPACES['native']}::{name}", key
    )


@functools.cache
def _namespace(backend: str) -> Any:
    if backend not in NAMESPACES:
        raise ValueError(f"backend: expected one of {sorted(NAMESPACES)}, got {backend!r}")
    return getattr(torch.ops, NAMESPACES[backend])


def namespace(backend: str | None = None) -> Any:
    """torch.ops namespace of a backend; None takes RNK_BACKEND (read at import), or "native".

    Raises: ValueError for a name that is not a backend.
    """
    return _namespace(backend or _default_backend)


_define(NAMESPACES["native"])
_native.load()
