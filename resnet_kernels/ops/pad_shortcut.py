"""pad_shortcut: every stride-th pixel with zeros for new channels, in one pass on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import DTYPES
from .direct import is_direct
from .layers import wants_grad
from .library import has_native_kernel

_HAS_KERNELS = has_native_kernel("pad_shortcut_fwd", "cpu")
_OPS = torch.ops.resnet_kernels
# stride, new channels in front and behind
Geometry = tuple[int, int, int]


def pad_shortcut(x: Tensor, stride: int, front: int, back: int) -> Tensor:
    """Option A of He et al. 2015: x [N, C, H, W] to [N, front + C + back, H / stride, W / stride].

    Equivalent to: F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, front, back))
    """
    if not torch.jit.is_scripting():  # alone: a script leaves the body out, but no `and`
        geometry = stride, front, back
        if _is_served(x, *geometry):
            if wants_grad(x):
                return _Pad.apply(x, geometry)
            return _OPS.pad_shortcut_fwd(x, *geometry)
    x = x[:, :, ::stride, ::stride]
    return F.pad(x, (0, 0, 0, 0, front, back))


def _is_served(x: Any, stride: int, front: int, back: int) -> bool:
    """Whether there is a kernel, and its result lies in memory as torch's would."""
    if not (_HAS_KERNELS and is_direct(x) and x.dtype in DTYPES and x.layout is torch.strided):
        return False
    if x.dim() != 4 or x.numel() == 0 or stride < 1 or min(front, back) < 0:
        return False
    _, c, h, w = x.shape
    # Where H is no multiple of the stride, torch takes the strides of what is left for contiguous.
    return (
        c > 1
        and x.stride() == (h * w * c, 1, w * c, c)
        and h % stride == 0
        and max(front, back) > 0
    )


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: Geometry) -> Tensor:
        ctx.size, ctx.geometry = x.shape, geometry
        return _OPS.pad_shortcut_fwd(x, *geometry)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        if not is_direct(dz):
            return _torch_gradient(dz, ctx.size, *ctx.geometry), None
        if wants_grad(dz):
            return _Unpad.apply(dz, ctx.size, ctx.geometry), None
        return _gradient(dz, ctx.size, ctx.geometry), None


class _Unpad(torch.autograd.Function):
    """The gradient of _Pad, whose own gradient is the padding again."""

    @staticmethod
    def forward(ctx: Any, dz: Tensor, size: torch.Size, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        return _gradient(dz, size, geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return pad_shortcut(g, *ctx.geometry), None, None


def _gradient(dz: Tensor, size: torch.Size, geometry: Geometry) -> Tensor:
    dz = dz.contiguous(memory_format=torch.channels_last)
    return _OPS.pad_shortcut_bwd(dz, *size[2:], *geometry)


def _torch_gradient(dz: Tensor, size: torch.Size, stride: int, front: int, back: int) -> Tensor:
    n, c, h, w = size
    dx = dz.narrow(1, front, c)
    dx = torch.ops.aten.slice_backward(dx, [n, c, dz.shape[2], w], 3, 0, w, stride)
    return torch.ops.aten.slice_backward(dx, size, 2, 0, h, stride)
