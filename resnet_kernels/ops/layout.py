"""Memory layout of [N, C, H, W] activations: channels_last (NHWC) or contiguous (NCHW)."""

from __future__ import annotations

import torch
from torch import Tensor


def strict_memory_format(x: Tensor) -> torch.memory_format | None:
    """The one dense memory format of x, or None where C == 1 or H == W == 1 make both true."""
    if x.is_contiguous():
        return (
            None if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None


def dense(x: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
    """x itself if it is dense in one of the two layouts, else a copy in `memory_format`."""
    if memory_format is not None:
        return x.contiguous(memory_format=memory_format)
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def conv_memory_format(x: Tensor, w: Tensor) -> torch.memory_format:
    """Layout of a convolution's output: x's; where x fits both, w's; where that does too, NCHW."""
    return strict_memory_format(x) or strict_memory_format(w) or torch.contiguous_format
