"""The backends that op tests run on in this installation, and how a test runs on one of them.

RNK_TEST_BACKENDS="cuda triton" runs the tests of backends on these alone. Inputs are drawn on the
CPU and moved, so that every device computes on the same values; the fp64 oracle is on the CPU.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from resnet_kernels.ops import library
from resnet_kernels.ops.library import triton_interpreted

# Test backend -> (the ops' `backend` argument, device).
BACKENDS = {
    "cpu": ("native", "cpu"),
    "cuda-emulated": ("emulated", "cpu"),
    "triton-emulated": ("triton-emulated", "cpu"),
    "triton-interpreted": ("triton", "cpu"),
    "cuda": ("native", "cuda"),
    "triton": ("triton", "cuda"),
}
SELECTION = "RNK_TEST_BACKENDS"
_CPU = torch.device("cpu")
_device = _CPU


def selected() -> list[str]:
    """Names in RNK_TEST_BACKENDS; empty where every backend that is there runs."""
    names = os.environ.get(SELECTION, "").split()
    if unknown := sorted(set(names) - set(BACKENDS)):
        raise ValueError(f"{SELECTION}: expected names of {sorted(BACKENDS)}, got {unknown}")
    return names


def _on_gpu() -> list[str]:
    if not torch.cuda.is_available():
        return []
    names = ["cuda"] if library.has_native_kernel("conv_fwd", "cuda") else []
    return names + ["triton"] * (importlib.util.find_spec("triton") is not None)


def available() -> list[str]:
    """Names of BACKENDS that op tests run on.

    Under TRITON_INTERPRET=1 the interpreted one alone: test_triton_interpreted.py starts a session
    with it. Emulated CUDA where the build had nvcc.
    """
    if names := selected():
        return names
    if triton_interpreted():
        return ["triton-interpreted"]
    names = ["cpu", *_on_gpu()]
    try:
        from resnet_kernels import emulator
    except ImportError:
        return names
    if emulator.has_kernels():
        names.append("cuda-emulated")
    if importlib.util.find_spec("triton") is not None:
        names.append("triton-emulated")
    return names


def of_public_ops() -> list[str]:
    """Names of BACKENDS that tests of public ops run on: emulated, they are slow, so by demand."""
    if triton_interpreted():
        return ["triton-interpreted"]
    return selected() or ["cpu", *_on_gpu()]


def device() -> torch.device:
    """Where the running test's tensors are."""
    return _device


def on_gpu() -> bool:
    return _device.type == "cuda"


@contextlib.contextmanager
def using(name: str) -> Iterator[str]:
    """Inside, backend `name` is the default and tensors of tests are on its device."""
    global _device
    backend, where = BACKENDS[name]
    if name == "cuda-emulated":
        importlib.import_module("resnet_kernels.emulator")  # registers its kernels
    before, device_before = library.set_default_backend(backend), _device
    _device = torch.device(where)
    try:
        yield name
    finally:
        library.set_default_backend(before)
        _device = device_before


class Mover:
    """Moves tensors with their whole storage: strides, alignment and shared memory stay."""

    def __init__(self, to: torch.device):
        self._to = to
        self._storages: dict[int, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.device == self._to:
            return value
        storage = value.untyped_storage()
        moved = self._storages.get(storage.data_ptr())
        if moved is None:
            whole = torch.empty(0, dtype=torch.uint8, device=value.device).set_(storage)
            moved = self._storages[storage.data_ptr()] = whole.to(self._to)
        place = (value.storage_offset(), value.shape, value.stride())
        empty = torch.empty(0, dtype=value.dtype, device=self._to)
        return empty.set_(moved.untyped_storage(), *place)


def placed(function: Callable[..., Any], writes: tuple[int, ...] = ()) -> Callable[..., Any]:
    """`function` on the running test's device: CPU tensors go there, results come back.

    writes: positions of arguments that it updates in place.
    """
    if not on_gpu():
        return function

    def call(*args: Any) -> Any:
        there = Mover(_device)
        moved = [there(arg) for arg in args]
        result = function(*moved)
        for i in writes:
            if isinstance(args[i], Tensor):
                args[i].copy_(moved[i])
        back = Mover(_CPU)
        return back(result) if isinstance(result, Tensor) else tuple(map(back, result))

    return call


def primitive(name: str) -> Callable[..., Any]:
    """A primitive of the running test's backend, for CPU tensors on every device."""
    op = getattr(library.namespace(), name)
    if not on_gpu():
        return op
    infos = [argument.alias_info for argument in op.default._schema.arguments]
    return placed(op, tuple(i for i, info in enumerate(infos) if info and info.is_write))
