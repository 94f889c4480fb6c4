"""Records what a forward reads from its modules while it is traced: the conditions of a plan."""

from __future__ import annotations

import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .hazards import Refused, Scan, is_immutable
from .settings import as_settings

MISSING = object()

_INTERNAL = frozenset(vars(nn.Module())) - {"training", "_modules"}
_NOT_STATE = _INTERNAL | frozenset(dir(nn.Module))


class Reads:
    """(path of a module, attribute) -> what was read: a value, a Module, or MISSING."""

    def __init__(self, paths: dict[nn.Module, str], scan: Scan) -> None:
        self.paths = paths
        self.scan = scan
        self.values: dict[tuple[str, str], Any] = {}
        self.structures: dict[str, tuple[str, ...]] = {}
        self._thread: int | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records all attribute reads of the modules in `paths` by this thread."""
        recorder = self

        def spy(module: nn.Module, name: str) -> Any:
            try:
                value = object.__getattribute__(module, name)
            except AttributeError:
                recorder.record(module, name, MISSING)
                raise
            return recorder.record(module, name, value)

        # Like torch.fx, which patches nn.Module.__call__ while it traces.
        nn.Module.__getattribute__ = spy  # type: ignore[assignment, method-assign]
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None
            del nn.Module.__getattribute__

    def record(self, module: nn.Module, name: str, value: Any) -> Any:
        """Notes a read; returns what the forward gets to see: value, or a copy it cannot change."""
        if name in _NOT_STATE and name not in ("_modules", "training"):
            return value
        if threading.get_ident() != self._thread or module not in self.paths:
            return value
        path = self.paths[module]
        if name == "_modules":
            self.structures[path] = tuple(value)
            return value
        if value is MISSING:
            value = self._registered(module, name)
        elif self._is_code(module, name, value):
            return value
        settings = as_settings(value)
        if settings is not None:
            self._check_unshared(module, name, value)
            value = settings
        elif not (value is MISSING or isinstance(value, (nn.Module, torch.Tensor))):
            thread, self._thread = self._thread, None
            self._check(f"{path}.{name}" if path else name, value)
            self._thread = thread
        self.values[path, name] = value
        return value

    def _check_unshared(self, module: nn.Module, name: str, value: Any) -> None:
        """Refuses a dict that a child has too, and may change between the guard and the read."""
        for other in self.paths:
            held = object.__getattribute__(other, "__dict__").values()
            if other is not module and any(item is value for item in held):
                raise Refused(f"forward reads the attribute {name}, which another module shares")

    @staticmethod
    def _registered(module: nn.Module, name: str) -> Any:
        own = object.__getattribute__(module, "__dict__")
        for table in ("_modules", "_parameters", "_buffers"):
            if name in own[table]:
                return own[table][name]
        return MISSING

    @staticmethod
    def _is_code(module: nn.Module, name: str, value: Any) -> bool:
        """Methods, and functions kept in attributes: what they are was checked by hazards.Scan."""
        if not callable(value) or isinstance(value, (type, nn.Module)):
            return False
        return name not in object.__getattribute__(module, "__dict__")

    def _check(self, where: str, value: Any) -> None:
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
            self.scan.value(value, f"forward uses {where}")
        elif not is_immutable(value):
            raise Refused(f"forward reads the mutable attribute {where}")
