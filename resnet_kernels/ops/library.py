"""Registration: the primitives of one namespace per backend, with fake kernels and fallbacks.

A primitive without a native kernel for its device runs the function of `ops/fallback.py`. Those in
`DECLARED` (torch's convolution) are part of the design; all are counted, and `RNK_STRICT=1` turns
any other one into an error. On the CPU the conv ops choose in C++ between our kernels and torch's
convolution (csrc/torch/conv_aten.cpp), which counts its calls there.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _native, triton
from .fakes import FAKES
from .fallback import DECLARED, FALLBACKS
from .schemas import SCHEMAS

# "emulated": the CUDA kernels on CPU tensors, loaded by resnet_kernels.emulator.
# "triton": Triton kernels on CUDA tensors, on CPU tensors under TRITON_INTERPRET=1.
# "triton-emulated": their compiled PTX on CPU tensors, run by resnet_kernels.emulator.
NAMESPACES = {
    "native": "resnet_kernels",
    "emulated": "resnet_kernels_emulated",
    "triton": "resnet_kernels_triton",
    "triton-emulated": "resnet_kernels_triton_emulated",
}

_default_backend = os.environ.get("RNK_BACKEND") or "native"
_libraries: list[torch.library.Library] = []
_fallback_calls: Counter[str] = Counter()
# Primitives without a CUDA kernel in this installation, which Triton serves on CUDA tensors.
_triton_fills: set[str] = set()
# The order of conv_fallback_calls in csrc/torch/conv_aten.cpp.
_COMPILED_FALLBACKS = ("conv_fwd", "conv_fwd_stats", "conv_dgrad", "conv_dgrad_bn", "conv_wgrad")
_compiled_calls_before: Counter[str] = Counter()
# What the CPU library has besides: csrc/torch/conv_aten.cpp; csrc/torch/cpu: filter_cache.cpp,
# cpu_isa.cpp, chain_inference.cpp, linear_inference.cpp, pad_shortcut.cpp, block_training.cpp,
# fma_peak.cpp and pooled.cpp.
_CPU_ONLY = (
    "conv_fallback_calls() -> int[]",
    "keep_packed_filter(int address) -> ()",
    "drop_packed_filter(int address) -> ()",
    "packed_filters() -> int[]",
    "cpu_isa() -> int",
    "keep_chain(Tensor[] tensors, int[] geometry, float[] eps, int[] blocks, int[] pool, int act, "
    "float slope, Tensor[] head) -> int",
    "drop_chain(int chain) -> ()",
    "chain_inference(int chain, Tensor x, Tensor? residual) -> Tensor?",
    "linear_inference(Tensor x, Tensor w, Tensor? bias) -> Tensor?",
    "pad_shortcut_fwd(Tensor x, int stride, int front, int back) -> Tensor",
    "pad_shortcut_bwd(Tensor dz, int h, int w, int stride, int front, int back) -> Tensor",
    "block_training_forward(Tensor x, Tensor? shortcut, Tensor[] weights, Tensor?[] vectors, "
    "Tensor(a!)?[] buffers, int[] geometry, float?[] momenta, float[] eps, int main, int act, "
    "float slope) -> Tensor[]",
    "block_training_backward(Tensor dout, Tensor x, bool has_shortcut, Tensor[] weights, "
    "Tensor?[] gammas, Tensor[] kept, bool[] needs, int[] geometry, int main, int act, "
    "float slope) -> Tensor?[]",
    "fma_peak(Tensor like, int rounds) -> float",
    "pool_sizes() -> int[]",
    "empty_pool() -> ()",
)
# Which CUDA kernel a forward convolution takes; csrc/torch/cuda/conv_choice.cpp.
_CHOICE = (
    "conv_cuda_choice(int[] x_size, int[] w_size, int[2] stride, int[2] padding, int[2] dilation, "
    "int groups, int dtype, bool tf32, int multiprocessors) -> int[]"
)


def _compiled_calls() -> Counter[str]:
    """Calls of torch's convolution from compiled ops since the library was loaded."""
    if not _native.status()["cpu"].loaded:
        return Counter()
    calls = torch.ops.resnet_kernels.conv_fallback_calls()
    return Counter(dict(zip(_COMPILED_FALLBACKS, calls, strict=True)))


def fallback_counts(reset: bool = False) -> dict[str, int]:
    """Calls, by primitive, that ran a plain-torch fallback since the start or the last reset."""
    compiled = _compiled_calls()
    counts = dict(_fallback_calls + (compiled - _compiled_calls_before))
    if reset:
        _fallback_calls.clear()
        _compiled_calls_before.clear()
        _compiled_calls_before.update(compiled)
    return counts


def empty_cache() -> None:
    """Gives memory that CPU ops keep for the tensors they return back to the system.

    Tensors and kept memory are together at most twice what was in use at one time.
    """
    if _native.status()["cpu"].loaded:
        torch.ops.resnet_kernels.empty_pool()


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
    library.define(_CHOICE)
    if namespace == NAMESPACES["native"]:
        for schema in _CPU_ONLY:
            library.define(schema)
    _libraries.append(library)


def has_native_kernel(name: str, device_type: str) -> bool:
    """Whether a kernel of ours (CPU, CUDA or Triton) serves `name` on this device type.

    On the CPU the conv ops have kernels for fp32 in channels_last; see conv_kernel.py for the rest.
    """
    return _has_kernel("native", name, device_type)


def _has_kernel(backend: str, name: str, device_type: str) -> bool:
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"{NAMESPACES[backend]}::{name}", key
    )


def triton_serves(name: str, device_type: str) -> bool:
    """Whether `name` runs a Triton kernel on this device type, with the default backend."""
    if _default_backend == "native":
        return device_type == "cuda" and name in _triton_fills
    return _default_backend.startswith("triton") and _has_kernel(
        _default_backend, name, device_type
    )


def triton_fills(name: str) -> bool:
    """Whether `name` on CUDA tensors is Triton's because this installation has no CUDA kernel."""
    return name in _triton_fills


def triton_interpreted() -> bool:
    """Whether Triton kernels run on numpy: TRITON_INTERPRET=1, which Triton reads at its import."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def _register_triton() -> None:
    """Triton kernels for their own namespaces, and for CUDA tensors where no CUDA kernel is."""
    if importlib.util.find_spec("triton") is None:
        return
    native, own, emulated = (
        torch.library.Library(NAMESPACES[backend], "IMPL")
        for backend in ("native", "triton", "triton-emulated")
    )
    for name in SCHEMAS:
        function = triton.primitive(name)
        own.impl(name, function, "CUDA")
        if triton_interpreted():
            own.impl(name, function, "CPU")
        else:
            emulated.impl(name, function, "CPU")
        if not has_native_kernel(name, "cuda"):
            native.impl(name, function, "CUDA")
            _triton_fills.add(name)
    _libraries.extend((native, own, emulated))


def namespace(backend: str | None = None) -> Any:
    """torch.ops namespace of a backend; None takes the default one.

    Raises: ValueError for a name that is not a backend.
    """
    name = backend or _default_backend
    if not isinstance(name, str) or name not in _namespaces:
        raise ValueError(f"backend: expected one of {sorted(NAMESPACES)}, got {name!r}")
    return _namespaces[name]


def default_backend() -> str:
    """RNK_BACKEND, read at import, or "native"; what set_default_backend said last."""
    return _default_backend


def set_default_backend(backend: str) -> str:
    """Makes a backend the default of ops that start from now on; returns the one before."""
    global _default_backend
    namespace(backend)
    before, _default_backend = _default_backend, backend
    return before


for _name in NAMESPACES.values():
    _define(_name)
_namespaces = {backend: getattr(torch.ops, name) for backend, name in NAMESPACES.items()}
_native.load()
_register_triton()
