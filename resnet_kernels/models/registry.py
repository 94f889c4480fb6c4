"""The models by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

_constructors: dict[str, Callable[..., nn.Module]] = {}
Constructor = TypeVar("Constructor", bound=Callable[..., nn.Module])


def register(constructor: Constructor) -> Constructor:
    """Adds a constructor under its own name."""
    _constructors[constructor.__name__] = constructor
    return constructor


def names() -> list[str]:
    """Names of all models."""
    return list(_constructors)


def create(name: str, **kwargs: Any) -> nn.Module:
    """The model of that name; keywords as its constructor. Raises ValueError for an unknown name."""
    if name not in _constructors:
        raise ValueError(f"name: expected one of {', '.join(_constructors)}, got {name!r}")
    return _constructors[name](**kwargs)
