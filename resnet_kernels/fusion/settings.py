"""Dicts of settings in a module's attributes: what a forward reads of them a plan can compare."""

from __future__ import annotations

from typing import Any, NoReturn

from .hazards import Refused, is_immutable


class Settings(dict[Any, Any]):
    """A dict of settings as a forward sees it while it is recorded: it cannot be changed."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise Refused("forward changes a dict in an attribute")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = _refuse
    pop = popitem = clear = _refuse


def as_settings(value: Any) -> Settings | None:
    """The dict as a forward may read it; None for other values, or items that may change."""
    if type(value) is not dict:
        return None
    fixed = all(is_immutable(key) and is_immutable(item) for key, item in value.items())
    return Settings(value) if fixed else None


def snapshot(value: Any) -> Any:
    """Keys, items and their types in order, to be compared; None if value is no dict."""
    if type(value) not in (dict, Settings):
        return None
    return (*value, *value.values(), *[type(item) for item in value.values()])
