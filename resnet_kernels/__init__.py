"""Fused convolution, batch norm, activation and residual kernels for ResNets.

`fuse(model)` swaps them into a model, `explain(model)` tells what happened, `models` has the
networks, `ops` the functions. Importing needs torch alone; `info.collect()` says what is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import models, nn, ops, reference
    from .fuse import explain, fuse, unfuse

_ATTRIBUTES = {"fuse": "fuse", "unfuse": "fuse", "explain": "fuse"}
_MODULES = ("models", "nn", "ops", "reference", "info")

__all__ = ["explain", "fuse", "models", "nn", "ops", "reference", "unfuse"]


def __getattr__(name: str) -> Any:
    if name in _ATTRIBUTES:
        # Importing the submodule `fuse` binds it to this package's name `fuse`: rebind all three.
        module = import_module(f".{_ATTRIBUTES[name]}", __name__)
        globals().update({attribute: getattr(module, attribute) for attribute in _ATTRIBUTES})
        return globals()[name]
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ATTRIBUTES, *_MODULES])
