"""Kernels compiled ahead of time, and their sm_80 PTX run on CPU tensors by the emulator.

Arguments are specialised as Triton's own launcher does it, except that alignment to 16 is asked of
all pointers and sizes together: two variants of a kernel, not one for every combination.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, NamedTuple

from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_source

from .launch import Config

ALIGNMENT = 16
_SCALARS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp64": ctypes.c_double}
_TYPE_NAMES = {
    "float32": "fp32",
    "float64": "fp64",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "u8",
    "int64": "i64",
}


class Variant(NamedTuple):
    """What a kernel is compiled for: a type or "constexpr" for each argument, and constants."""

    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: bool
    config: Config


class Compiled(NamedTuple):
    """PTX and what a launch needs to know of it; `arguments` are those that are not constants."""

    ptx: str
    name: str
    threads: int
    shared: int
    arguments: tuple[int, ...]
    scratch: int


_compiled: dict[tuple[Any, Variant], Compiled] = {}


def _type_of(param: Any, arg: Any) -> str:
    if arg is None:
        return "constexpr"
    if isinstance(arg, Tensor):
        return "*" + _TYPE_NAMES[str(arg.dtype).removeprefix("torch.")]
    if param.annotation_type:
        return param.annotation_type
    if arg == 1 and not param.do_not_specialize:
        return "constexpr"
    return "i32" if -(2**31) <= arg < 2**31 else "i64"


def _is_aligned(param: Any, arg: Any) -> bool:
    if isinstance(arg, Tensor):
        return arg.data_ptr() % ALIGNMENT == 0
    return param.do_not_specialize or not isinstance(arg, int) or arg % ALIGNMENT == 0


def variant_of(
    kernel: Any, args: tuple[Any, ...], constants: dict[str, Any], config: Config
) -> Variant:
    """The variant of `kernel` that serves these arguments."""
    pairs = list(zip(kernel.params, args, strict=False))
    types = [(param.name, _type_of(param, arg)) for param, arg in pairs]
    fixed = {p.name: arg for (p, arg), (_, t) in zip(pairs, types, strict=True) if t == "constexpr"}
    types += [(name, "constexpr") for name in constants]
    aligned = all(_is_aligned(param, arg) for param, arg in pairs if param.name not in fixed)
    return Variant(tuple(types), tuple((fixed | constants).items()), aligned, config)


def build(kernel: Any, variant: Variant, capability: int) -> Any:
    """Triton's compiled kernel (cached on disk by Triton) for an architecture, without a GPU."""
    attributes = {
        (index,): [["tt.divisibility", ALIGNMENT]]
        for index, (_, kind) in enumerate(variant.types)
        if kind[0] == "*" or (kind in ("i32", "i64") and not kernel.params[index].do_not_specialize)
    }
    source = ASTSource(
        kernel,
        dict(variant.types),
        constexprs=dict(variant.constants),
        attrs=attributes if variant.aligned else {},
    )
    options = {"num_warps": variant.config.warps, "num_stages": variant.config.stages}
    return compile_source(source, target=GPUTarget("cuda", capability, 32), options=options)


def _compile(kernel: Any, variant: Variant) -> Compiled:
    built = build(kernel, variant, 80)
    ptx, meta = built.asm["ptx"], built.metadata
    names = [name for name, _ in variant.types]
    constants = dict(variant.constants)
    arguments = tuple(i for i, name in enumerate(names) if name not in constants)
    parameters = re.search(rf"\.entry {meta.name}\((.*?)\)", ptx, re.S)
    # Triton appends pointers to scratch memory, which these kernels do not use.
    scratch = (parameters[1].count(".param") if parameters else 0) - len(arguments)
    return Compiled(ptx, meta.name, meta.num_warps * 32, meta.shared, arguments, scratch)


def _packed(kind: str, arg: Any) -> Any:
    return arg if isinstance(arg, Tensor) else _SCALARS[kind](arg)


def run(
    kernel: Any, programs: int, args: tuple[Any, ...], constants: dict[str, Any], config: Config
) -> None:
    """One launch on CPU tensors with every detector of the emulator on."""
    from .. import emulator

    variant = variant_of(kernel, args, constants, config)
    key = (kernel, variant)
    compiled = _compiled.get(key)
    if compiled is None:
        compiled = _compiled[key] = _compile(kernel, variant)
    packed = [_packed(variant.types[i][1], args[i]) for i in compiled.arguments]
    emulator.launch(
        compiled.ptx,
        compiled.name,
        programs,
        compiled.threads,
        [*packed, *[None] * compiled.scratch],
        compiled.shared,
    )
