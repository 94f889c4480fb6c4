"""Runs a module's forward once on symbolic inputs (torch.fx); keeps its graph and conditions.

Child modules are leaves, except plain containers of layers and stateless function modules. The
module itself is never replaced: the graph only serves to find chains (match.py) and to write a plan
(plan.py).
"""

from __future__ import annotations

import operator
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from . import kinds
from .hazards import Refused, Scan
from .reads import Reads
from .views import is_view

# An argument: "tensor", (type, value) of a constant, or (list or tuple, length, "tensors").
ArgumentKey = tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]

_CONSTANTS = (type(None), bool, int, float, str)


def _one_key(value: Any) -> Any:
    # A plan answers isinstance() for plain tensors; other kinds go the module's own way.
    if type(value) is torch.Tensor:
        return "tensor"
    if isinstance(value, _CONSTANTS):
        return (type(value), value)
    if type(value) in (list, tuple) and all(type(item) is torch.Tensor for item in value):
        return (type(value), len(value), "tensors")
    return None


ONE_TENSOR: ArgumentKey = (("tensor",), ())


def argument_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArgumentKey | None:
    """Structure of a call's arguments; None where it has more than tensors, constants and lists."""
    if len(args) == 1 and not kwargs and type(args[0]) is torch.Tensor:
        return ONE_TENSOR
    positional = tuple(_one_key(value) for value in args)
    named = tuple((name, _one_key(value)) for name, value in kwargs.items())
    if None in positional or any(key is None for _, key in named):
        return None
    return positional, named


def flat_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors of a call in the order of the placeholders of a trace with its key."""
    flat: list[torch.Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            flat.append(value)
        elif type(value) in (list, tuple):
            flat.extend(value)
    return flat


class _Proxy(fx.Proxy):
    """A symbolic value that says truly whether it is a tensor, and records `+=` as such."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.partition(".")[0] in ("torch", __name__.partition(".")[0]):
            return _Proxy
        if kinds.is_tensor(self.node, self.tracer.root):  # type: ignore[attr-defined]
            return torch.Tensor
        raise Refused("forward asks for the type of a value that is not known")

    def __getattr__(self, name: str) -> Any:
        if not hasattr(torch.Tensor, name):
            if kinds.is_tensor(self.node, self.tracer.root):  # type: ignore[attr-defined]
                raise AttributeError(name)
            raise Refused(f"forward reads .{name} of a value that is not known")
        return super().__getattr__(name)

    def __str__(self) -> str:
        raise Refused("forward prints a tensor")

    def __format__(self, spec: str) -> str:
        raise Refused("forward prints a tensor")


def _in_place(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def method(self: Any, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ipow", "iand", "ior", "ixor", "imatmul", "imod"):
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class _OnlySymbolic(TorchFunctionMode):
    """Refuses torch calls whose result would be baked into the plan."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        if not any(type(leaf) is _Proxy or isinstance(leaf, fx.Proxy) for leaf in leaves):
            raise Refused(f"forward calls {getattr(func, '__name__', func)} on no input")
        return func(*args, **(kwargs or {}))


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[..., Any],
        key: ArgumentKey,
        opened: frozenset[nn.Module],
    ) -> None:
        # Any: torch's own annotation of this argument differs between its versions.
        super().__init__(autowrap_modules=cast(Any, ()))
        self.forward = forward
        self.opened = opened
        self.key = key
        self.thread = threading.get_ident()
        self.paths = {child: path for path, child in module.named_modules()}
        self.tensors = {id(p): n for n, p in module.named_parameters()}
        self.tensors.update({id(b): n for n, b in module.named_buffers()})
        self.scan = Scan(module)
        self.reads = Reads(self.paths, self.scan)
        self.inlined: set[str] = set()
        self.touched: set[str] = set()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        # torch.fx patches nn.Module for all threads; another thread's call is none of ours.
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        self.touched.add(module_qualified_name)
        if kinds.hooked(m) or not (kinds.is_inlined(m) or self._is_function(m)):
            return True
        self.inlined.add(module_qualified_name)
        return False

    def _is_function(self, module: nn.Module) -> bool:
        if not (kinds.is_stateless(module) or module in self.opened):
            return False
        try:
            self.scan.function(kinds.forward_of(module))
        except Refused:
            return False
        return True

    def path_of_module(self, mod: nn.Module) -> str:
        if mod not in self.paths:
            raise Refused("forward calls a module that is not its child")
        return self.paths[mod]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if not isinstance(attr_val, torch.Tensor) or threading.get_ident() != self.thread:
            return attr_val
        name = self.tensors.get(id(attr_val))
        if name is None:
            raise Refused(f"forward reads the tensor {attr}, which is not registered")
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        if type(a) is _Proxy:
            return a.node
        if isinstance(a, torch.Tensor):
            raise Refused("forward uses a tensor that is not an input")
        if isinstance(a, (dict, list)) and type(a) not in (dict, list):
            raise Refused(f"forward makes a {type(a).__name__}")
        if isinstance(a, nn.Module):
            raise Refused("forward passes a module to a function")
        return super().create_arg(a)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        positional, named = self.key
        args = [self._argument(key) for key in positional]
        kwargs = {name: self._argument(key) for name, key in named}

        def call() -> Any:
            with self.reads.recording(), _OnlySymbolic():
                out = self.forward(self.root, *args, **kwargs)
            if type(out) is OrderedDict:
                pairs = tuple(out.items())
                return self.create_proxy("call_function", OrderedDict, (pairs,), {})
            return out

        return call, []

    def _argument(self, key: Any) -> Any:
        if key == "tensor":
            return self.create_proxy("placeholder", f"x{len(self.graph.nodes)}", (), {})
        if key[-1] == "tensors":
            return key[0](self._argument("tensor") for _ in range(key[1]))
        return key[1]


class Trace:
    """The graph of one forward, or the reason why there is none; `reads` are the plan's conditions.

    opened: children to look into beside plain containers and functions.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[..., Any],
        key: ArgumentKey,
        opened: frozenset[nn.Module] = frozenset(),
    ) -> None:
        self.key = key
        self.forward = forward
        self.graph: fx.Graph | None = None
        self.reason = ""
        tracer = _Tracer(module, forward, key, opened)
        try:
            tracer.scan.function(forward)
            graph = tracer.trace(module)
            if not any(node.op == "call_module" or is_view(node) for node in graph.nodes):
                raise Refused("forward calls no child")
            self.graph = graph
        except Refused as error:
            self.reason = str(error)
        except Exception as error:
            # Whatever a forward does on symbolic values, the module then runs as it was.
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            self.reason = f"forward cannot be traced: {first_line}"
        self.reads = tracer.reads
        self.constants = tracer.scan.constants
        self.inlined = tracer.inlined
        self.touched = tracer.touched
        self.aliases = _aliases(module, tracer.touched)


def _aliases(module: nn.Module, touched: set[str]) -> list[tuple[str, str]]:
    """Pairs of paths that name one module, one of them used."""
    first: dict[int, str] = {}
    pairs = []
    for path, child in module.named_modules(remove_duplicate=False):
        known = first.setdefault(id(child), path)
        if known != path and (known in touched or path in touched):
            pairs.append((known, path))
    return pairs
