"""`.view()` in user code: it takes no channels_last activation apart, which fuse() may hand it.

A plan runs `.reshape()` in its place, which copies where it must. Where a forward that has it
cannot be planned, the model's convolutions stay in the memory format they have.
"""

from __future__ import annotations

import types
from collections.abc import Iterator

import torch
from torch import fx, nn

from .hazards import TRUSTED
from .kinds import Graph

# The method that a plan calls instead.
RESHAPES = {"view": "reshape", "view_as": "reshape_as"}


def uses_view(module: nn.Module) -> bool:
    """Whether code of the module's own classes, or a function it holds or calls, has a view."""
    seen: set[types.CodeType] = set()
    return any(_has_view(function, seen) for function in _functions(module))


def _functions(module: nn.Module) -> Iterator[types.FunctionType]:
    """Methods of classes that are no library's, and functions kept in attributes."""
    for base in type(module).__mro__:
        if base.__module__.partition(".")[0] not in (*TRUSTED, "builtins"):
            yield from (v for v in vars(base).values() if isinstance(v, types.FunctionType))
    yield from (v for v in vars(module).values() if isinstance(v, types.FunctionType))


def _has_view(function: types.FunctionType, seen: set[types.CodeType]) -> bool:
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        if code in seen:
            continue
        seen.add(code)
        if not RESHAPES.keys().isdisjoint(code.co_names):
            return True
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        for name in code.co_names:
            called = function.__globals__.get(name)
            if isinstance(called, types.FunctionType) and _is_users(called):
                codes.append(called.__code__)
    return False


def _is_users(function: types.FunctionType) -> bool:
    return str(function.__globals__.get("__name__", "")).partition(".")[0] not in TRUSTED


def is_view(node: fx.Node) -> bool:
    """Whether a node is x.view(sizes) or x.view_as(other), not x.view(dtype)."""
    return (
        node.op == "call_method"
        and node.target in RESHAPES
        and not node.kwargs
        and not isinstance(node.args[-1], torch.dtype)
    )


def views(graph: Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if is_view(node)]


def written_view(graph: Graph) -> bool:
    """Whether something writes later to memory that a view shares: then it cannot be a copy."""
    for view in views(graph):
        roots = graph.roots(view)
        for node in graph.nodes[graph.position[view] + 1 :]:
            if not graph.changed(node).isdisjoint(roots):
                return True
    return False
