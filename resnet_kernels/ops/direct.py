"""Whether an op may be called past torch's own: nothing watches, traces or transforms the call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .library import NAMESPACES, namespace

PLAIN = (Tensor, nn.Parameter)
_NATIVE = NAMESPACES["native"]


def transformed() -> bool:
    """Whether functorch or forward-mode gradients are active."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def is_direct(x: Any) -> bool:
    """Whether x is a CPU tensor, and nothing traces or transforms what is done with it."""
    return (
        type(x) in PLAIN
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
        and not torch._C._functorch.is_legacy_batchedtensor(x)  # of a batch of gradients
        and namespace().name == _NATIVE
    )
