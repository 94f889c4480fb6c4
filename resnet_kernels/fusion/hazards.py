"""Static check of a forward's code: may it be run once on symbolic inputs and replayed later?

Refuses whatever could make two runs differ although the module looks the same (random, time, I/O,
global switches), whatever writes state that outlives the call, and whatever a recording of tensor
operations cannot hold (try, with, generators, custom autograd functions). Code of torch,
torchvision, timm and this package is taken to be well behaved in what it names; it is checked for
try, with and stores only.
"""

from __future__ import annotations

import builtins
import dis
import enum
import operator
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .local_dicts import own_dict_stores

TRUSTED = ("torch", "torchvision", "timm", "resnet_kernels")

_STORES = {"STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR", "STORE_GLOBAL"}
_FORBIDDEN_OPS = {
    **dict.fromkeys(_STORES, "writes state"),
    **dict.fromkeys(("SETUP_FINALLY", "PUSH_EXC_INFO"), "uses try"),
    **dict.fromkeys(
        ("SETUP_WITH", "BEFORE_WITH", "WITH_EXCEPT_START", "LOAD_SPECIAL"), "uses with"
    ),
    **dict.fromkeys(("SETUP_ASYNC_WITH", "BEFORE_ASYNC_WITH", "GET_AWAITABLE"), "is async"),
    **dict.fromkeys(("IMPORT_NAME", "IMPORT_FROM"), "imports"),
}
# Names whose value depends on global state, that draw random numbers, switch autograd or change a
# module. (type, hasattr and callable are not allowed: a symbolic value cannot answer them truly.)
_FORBIDDEN_NAMES = frozenset(
    [
        "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson",
        "manual_seed", "seed", "random", "initial_seed", "get_rng_state", "set_rng_state",
        "default_generator", "is_grad_enabled", "no_grad", "set_grad_enabled", "enable_grad",
        "inference_mode", "is_inference_mode_enabled", "autocast", "is_autocast_enabled",
        "is_compiling", "is_dynamo_compiling", "is_exporting", "is_in_onnx_export",
        "get_default_dtype", "set_default_dtype", "get_default_device", "set_default_device",
        "get_num_threads", "set_num_threads", "are_deterministic_algorithms_enabled",
        "use_deterministic_algorithms", "backends", "distributed", "mps", "xpu", "is_available",
        "device_count", "item", "tolist", "numpy", "data_ptr", "backward", "register_hook",
        "requires_grad_", "save", "load", "checkpoint", "__dict__", "__class__", "__setattr__",
        "register_buffer", "register_parameter", "add_module", "register_module",
        "register_forward_hook", "register_forward_pre_hook", "train", "eval", "apply", "to",
        "cuda", "cpu",
    ]
)  # fmt: skip
_ALLOWED_BUILTINS = frozenset(
    [
        "len", "range", "zip", "enumerate", "isinstance", "issubclass", "tuple", "list", "dict",
        "set", "int", "float", "bool", "str", "min", "max", "sum", "abs", "round", "divmod",
        "pow", "getattr", "super", "reversed", "sorted", "map", "filter", "any", "all", "slice",
        "property", "ValueError", "TypeError", "RuntimeError", "AssertionError",
        "NotImplementedError", "KeyError", "IndexError", "Exception", "Ellipsis",
        "NotImplemented", "True", "False", "None",
    ]
)  # fmt: skip
_ALLOWED_MODULES = frozenset(
    [
        "torch", "torch.nn", "torch.nn.functional", "torch.nn.modules", "torch._C",
        "torch._C._nn", "torch.jit", "torch.fx", "torch.utils", "torch.ops", "torch.special",
        "math", "operator", "typing",
    ]
)  # fmt: skip
_MODULE_METHODS = frozenset(dir(nn.Module)) - {"forward"}


class Refused(Exception):
    """The code cannot be recorded; str() says why."""


def is_immutable(value: Any) -> bool:
    """Whether a recorded value of this kind can be compared later instead of watched."""
    if isinstance(value, tuple):
        return all(is_immutable(item) for item in value)
    simple = (
        type(None), bool, int, float, complex, str, bytes, enum.Enum, torch.dtype, torch.device,
        torch.memory_format, torch.layout,
    )  # fmt: skip
    return isinstance(value, simple)


def _root_package(function: types.FunctionType) -> str:
    return str(function.__globals__.get("__name__", "")).partition(".")[0]


def is_trusted(function: types.FunctionType) -> bool:
    return _root_package(function) in TRUSTED


class Scan:
    """Walks the code reachable from a module's forward; `constants`: globals whose value counts."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.classes = {type(module) for module in root.modules()}
        self.seen: set[types.CodeType] = set()
        self.constants: dict[tuple[int, str], tuple[dict[str, Any], Any]] = {}

    def function(self, function: Any) -> None:
        """Checks a Python function and everything it may call. Raises Refused."""
        function = getattr(function, "__func__", function)
        if not isinstance(function, types.FunctionType):
            raise Refused(f"{function!r} is not a Python function")
        if hasattr(function, "__wrapped__"):
            raise Refused(f"{function.__qualname__} is decorated")
        if function.__code__ in self.seen:
            return
        self.seen.add(function.__code__)
        flags = function.__code__.co_flags
        if flags & (0x20 | 0x80 | 0x200):  # generator, coroutine, asynchronous generator
            raise Refused(f"{function.__qualname__} is a generator or coroutine")
        trusted = is_trusted(function)
        for code in _codes(function.__code__):
            harmless = own_dict_stores(code, function.__globals__)
            for instruction in dis.get_instructions(code):
                if instruction.offset not in harmless:
                    self._instruction(function, code, instruction, trusted)
        if not trusted:
            self._closure(function)

    def _instruction(
        self,
        function: types.FunctionType,
        code: types.CodeType,
        instruction: dis.Instruction,
        trusted: bool,
    ) -> None:
        op, name = instruction.opname, instruction.argval
        reason = _FORBIDDEN_OPS.get(op)
        if op == "STORE_DEREF" and name in code.co_freevars:
            reason = "writes state"
        if reason:
            detail = f" ({name})" if isinstance(name, str) else ""
            raise Refused(f"{function.__qualname__} {reason}{detail}")
        if trusted:
            return
        if op in ("LOAD_GLOBAL", "LOAD_NAME"):
            self._global(function, name)
        elif op in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            self._attribute(function, name)

    def _closure(self, function: types.FunctionType) -> None:
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=False
        ):
            if name != "__class__":
                self.value(cell.cell_contents, f"{function.__qualname__} uses {name}")

    def _global(self, function: types.FunctionType, name: str) -> None:
        scope = function.__globals__
        if name not in scope:
            if hasattr(builtins, name) and name not in _ALLOWED_BUILTINS:
                raise Refused(f"{function.__qualname__} calls {name}")
            return
        value = scope[name]
        if is_immutable(value):
            self.constants[id(scope), name] = (scope, value)
            return
        self.value(value, f"{function.__qualname__} uses {name}")

    def _attribute(self, function: types.FunctionType, name: str) -> None:
        if name in _FORBIDDEN_NAMES:
            raise Refused(f"{function.__qualname__} uses .{name}")
        if name in _MODULE_METHODS:
            return
        for cls in self.classes:
            for base in cls.__mro__:
                if base.__module__.startswith(__package__):
                    continue
                found = vars(base).get(name)
                if isinstance(found, property):
                    found = found.fget
                if isinstance(found, (types.FunctionType, staticmethod, classmethod)):
                    self.function(found)

    def value(self, value: Any, where: str) -> None:
        """Checks a global, closure or attribute value that the code may call. Raises Refused."""
        if is_immutable(value):
            return
        if isinstance(value, types.ModuleType):
            if value.__name__ not in _ALLOWED_MODULES and value is not operator:
                raise Refused(f"{where} (module {value.__name__})")
        elif isinstance(value, types.FunctionType):
            if not is_trusted(value) or hasattr(value, "__wrapped__"):
                self.function(value)
            elif value.__name__ in _FORBIDDEN_NAMES:
                raise Refused(where)
        elif isinstance(value, types.MethodType):
            self.function(value.__func__)
        elif isinstance(value, type):
            self._class(value, where)
        elif isinstance(value, types.BuiltinFunctionType):
            home = getattr(value, "__module__", None) or ""
            known = home.partition(".")[0] == "torch" or hasattr(torch, value.__name__)
            if value.__name__ in _FORBIDDEN_NAMES or not (
                known or home in ("math", "_operator") or value.__name__ in _ALLOWED_BUILTINS
            ):
                raise Refused(where)
        else:
            raise Refused(f"{where} (a {type(value).__name__})")

    def _class(self, value: type, where: str) -> None:
        harmless = (nn.Module, torch.Tensor, tuple, list, dict, int, float, str, BaseException)
        if not issubclass(value, harmless) and value is not object:
            raise Refused(f"{where} (class {value.__name__})")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and that of the functions and comprehensions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
