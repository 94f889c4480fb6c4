"""The primitives of ops/schemas.py as Triton kernels, one module an op; imported on first use.

CUDA tensors run on the GPU. CPU tensors run interpreted on numpy where TRITON_INTERPRET=1 was set
before Triton was imported, else as compiled sm_80 code on the emulator.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

# primitive -> module
MODULES = {
    "conv_fwd": "conv_fwd",
    "conv_fwd_stats": "conv_fwd",
    "bn_stats": "bn_stats",
    "bn_finalize": "bn_finalize",
    "bn_affine": "bn_affine",
    "bn_act_fwd": "bn_act_fwd",
    "bn_act_fwd_mask": "bn_act_fwd",
    "bn_act_bwd_reduce": "bn_act_bwd_reduce",
    "bn_act_bwd_reduce_add": "bn_act_bwd_reduce",
    "bn_act_bwd_reduce_dual": "bn_act_bwd_reduce",
    "bn_bwd_finalize": "bn_bwd_finalize",
    "bn_bwd_apply": "bn_bwd_apply",
    "conv_dgrad": "conv_dgrad",
    "conv_dgrad_bn": "conv_dgrad",
    "conv_apply_dgrad": "conv_apply_dgrad",
    "conv_apply_dgrad_bn": "conv_apply_dgrad",
    "conv_wgrad": "conv_wgrad",
    "max_pool_fwd": "max_pool",
    "max_pool_bwd": "max_pool",
    "avg_pool_fwd": "avg_pool",
    "avg_pool_bwd": "avg_pool",
}


def primitive(name: str) -> Callable[..., Any]:
    """The function that runs a primitive; its module is imported by the first call."""
    found: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if not found:
            module = importlib.import_module(f".{MODULES[name]}", __name__)
            found.append(getattr(module, name))
        return found[0](*args)

    call.__name__ = name
    return call
