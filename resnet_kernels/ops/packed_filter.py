"""Filters of inference that the CPU kernels keep packed (csrc/torch/cpu/filter_cache.cpp).

A parameter's filter is packed once and used until it changes: in place, which its version tells, or
through `.data`, numpy or another process, which a sample of its values tells. Memory: 1 to 16/9 of
the parameter's, freed with it. RNK_CPU_PACKED=0 packs at every call.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from . import library

# By id of the parameter: the address it had, and what lets go of the packed filter.
_kept: dict[int, tuple[int, weakref.finalize[..., Any]]] = {}
_wanted = os.environ.get("RNK_CPU_PACKED", "1") != "0"


def inference_filter(ns: Any, w: Tensor) -> Tensor:
    """w [K, C / groups, R, S], which the CPU's conv_fwd may keep packed if it is a parameter."""
    if (
        not torch.compiler.is_compiling()
        and isinstance(w, nn.Parameter)
        and w.is_cpu
        and ns.name == library.NAMESPACES["native"]
    ):
        known, address = _kept.get(id(w)), w.data_ptr()
        if known is None or known[0] != address:
            _keep(w, address, known)
    return w


def _keep(w: nn.Parameter, address: int, known: Any) -> None:
    if not _wanted or not library.has_native_kernel("conv_fwd", "cpu"):
        return
    if known is not None:
        known[1]()  # other memory: .data was set, or .to() called
    torch.ops.resnet_kernels.keep_packed_filter(address)
    drop = weakref.finalize(w, _drop, id(w), address)
    drop.atexit = False
    _kept[id(w)] = address, drop


def _drop(key: int, address: int) -> None:
    _kept.pop(key, None)
    # Called by the garbage collector, at any place, such as under a mode that traces.
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        torch.ops.resnet_kernels.drop_packed_filter(address)


def packed_filters() -> dict[str, int]:
    """Filters that are kept packed: `filters`, their `bytes`, and `served` calls so far."""
    if not library.has_native_kernel("conv_fwd", "cpu"):
        return {"filters": 0, "bytes": 0, "served": 0}
    counts = torch.ops.resnet_kernels.packed_filters()
    return dict(zip(("filters", "bytes", "served"), counts, strict=True))
