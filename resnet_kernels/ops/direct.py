"""Whether nothing stands between a call and the CPU's own kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


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
        not torch.compiler.is_compiling()
        and type(x) in PLAIN
        and x.is_cpu
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
    )
