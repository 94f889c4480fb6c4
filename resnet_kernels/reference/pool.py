"""Pooling with act(scale * x + bias) in front. x [N, C, H, W], z, indices [N, C, P, Q]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import in_layout_of, up
from .conv import prologue


def _pool_step(stride: Sequence[int], kernel: Sequence[int]) -> list[int]:
    return [s or k for s, k in zip(stride, kernel, strict=True)]


def _window_rows(
    taps: Tensor, size: int, step: int, padding: int, dilation: int, dim: int
) -> Tensor:
    """Input row (dim 2) or column (dim 3) under each tap, a tap counted from its window's start."""
    start = torch.arange(size, device=taps.device) * step - padding
    return start.view([-1 if d == dim else 1 for d in range(4)]) + taps * dilation


def max_pool_fwd(
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    act: int,
    slope: float,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:
    """indices: the window's tap r * S + s, uint8. The first maximum wins; NaN wins over all."""
    a = prologue(x, scale, bias, act, slope)
    step = _pool_step(stride, kernel)
    z, flat = F.max_pool2d(
        a, list(kernel), step, list(padding), list(dilation), ceil_mode, return_indices=True
    )
    zero = torch.zeros_like(flat)
    rows = _window_rows(zero, z.shape[2], step[0], padding[0], dilation[0], 2)
    columns = _window_rows(zero, z.shape[3], step[1], padding[1], dilation[1], 3)
    width = x.shape[3]
    r = (flat.div(width, rounding_mode="floor") - rows) // dilation[0]
    s = (flat % width - columns) // dilation[1]
    return in_layout_of(z, x), in_layout_of((r * kernel[1] + s).to(torch.uint8), x)


def max_pool_bwd(
    dz: Tensor,
    indices: Tensor,
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Gradient of the activated input: each dz goes to its window's maximum, summed in fp32."""
    n, c, h, w = input_size
    step = _pool_step(stride, kernel)
    taps = indices.long()
    rows = _window_rows(taps // kernel[1], dz.shape[2], step[0], padding[0], dilation[0], 2)
    columns = _window_rows(taps % kernel[1], dz.shape[3], step[1], padding[1], dilation[1], 3)
    value = up(dz).reshape(n, c, -1)
    dx = value.new_zeros(n, c, h * w).scatter_add_(2, (rows * w + columns).reshape(n, c, -1), value)
    return in_layout_of(dx.view(n, c, h, w).to(dz.dtype), dz)


def avg_pool_fwd(
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    act: int,
    slope: float,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    a = up(prologue(x, scale, bias, act, slope))
    step = _pool_step(stride, kernel)
    z = F.avg_pool2d(a, list(kernel), step, list(padding), ceil_mode, count_include_pad)
    return in_layout_of(z.to(x.dtype), x)


def avg_pool_bwd(
    dz: Tensor,
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    step = _pool_step(stride, kernel)
    like = up(dz).new_empty(1).expand(input_size)
    dx = torch.ops.aten.avg_pool2d_backward(
        up(dz), like, list(kernel), step, padding, ceil_mode, count_include_pad, None
    )
    return in_layout_of(dx.to(dz.dtype), dz)
