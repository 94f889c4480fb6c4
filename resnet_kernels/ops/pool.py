"""max_pool, avg_pool: pooling that keeps one byte an output element, or nothing, for backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .fakes import pool_out_size
from .layers import NO_PROLOGUE, apply, as_dense, wants_grad
from .layout import conv_memory_format
from .library import namespace

PoolArgs = tuple[checks.Pair, checks.Pair, checks.Pair, checks.Pair, bool]
MAX_TAPS = 255


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ns: Any, pool: PoolArgs, x: Tensor) -> Tensor:
        x = as_dense(x)
        z, indices = ns.max_pool_fwd(x, *NO_PROLOGUE, *pool)
        ctx.ns, ctx.pool, ctx.x_size = ns, pool, x.shape
        ctx.save_for_backward(indices)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        (indices,) = ctx.saved_tensors
        return None, None, max_pool_backward(ctx.ns, dz, indices, ctx.x_size, ctx.pool)


def max_pool_backward(ns: Any, dz: Tensor, indices: Tensor, x_size: Any, pool: PoolArgs) -> Tensor:
    layout = torch.contiguous_format if indices.is_contiguous() else torch.channels_last
    return ns.max_pool_bwd(dz.contiguous(memory_format=layout), indices, x_size, *pool[:4])


def max_pool_args(
    kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> PoolArgs:
    """Checked arguments of a max pooling; stride None is the kernel."""
    size = checks.pair(kernel, "kernel", 1)
    step = size if stride is None else checks.pair(stride, "stride", 1)
    pad, step_in = checks.pair(padding, "padding", 0), checks.pair(dilation, "dilation", 1)
    checks.pool_padding(pad, size)
    if size[0] * size[1] > MAX_TAPS:
        raise ValueError(f"kernel: expected at most {MAX_TAPS} taps, got {size[0]} x {size[1]}")
    return size, step, pad, step_in, bool(ceil_mode)


def max_pool(
    x: Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    backend: str | None = None,
) -> Tensor:
    """Max pooling.

    Equivalent to: F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        kernel, stride, padding, dilation: ints or pairs; at most 255 taps; stride None is the
        kernel.
    Returns: (N, C, P, Q), dtype and memory format of x. Keeps one byte an output element.
    Raises: ValueError or TypeError naming the argument, the expected and the given value.
    """
    checks.activation(x, "x")
    pool = max_pool_args(kernel, stride, padding, dilation, ceil_mode)
    checks.image_covers_kernel(pool_out_size(x.shape, *pool), "kernel")
    ns = namespace(backend)
    if wants_grad(x):
        return apply(_MaxPool, ns, pool, x)
    return ns.max_pool_fwd(as_dense(x), *NO_PROLOGUE, *pool)[0]


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ns: Any, pool: Any, x: Tensor) -> Tensor:
        x = as_dense(x)
        z = ns.avg_pool_fwd(x, *NO_PROLOGUE, *pool)
        ctx.ns, ctx.pool, ctx.x_size = ns, pool, x.shape
        ctx.layout = conv_memory_format(x, x)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        if dz.shape[2] * dz.shape[3] == 1 and ctx.pool[0] == tuple(ctx.x_size[2:]):
            # One window: every element gets the same share, which the next op reads where it is.
            share = 1 / (ctx.pool[0][0] * ctx.pool[0][1])
            return None, None, (dz * share).expand(ctx.x_size)
        dz = dz.contiguous(memory_format=ctx.layout)
        return None, None, ctx.ns.avg_pool_bwd(dz, ctx.x_size, *ctx.pool)


def avg_pool(
    x: Tensor,
    kernel: Any = None,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    backend: str | None = None,
) -> Tensor:
    """Average pooling; without a kernel over the whole image.

    Equivalent to: F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad), or
        F.adaptive_avg_pool2d(x, 1) where kernel is None

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        kernel, stride, padding: ints or pairs; stride None is the kernel.
    Returns: (N, C, P, Q), dtype and memory format of x. Keeps nothing for backward.
    Raises: ValueError or TypeError naming the argument, the expected and the given value.
    """
    checks.activation(x, "x")
    if 0 in x.shape[2:]:
        raise ValueError(f"x: expected an image of at least 1 x 1, got {list(x.shape)}")
    size = tuple(x.shape[2:]) if kernel is None else checks.pair(kernel, "kernel", 1)
    step = (0, 0) if kernel is None or stride is None else checks.pair(stride, "stride", 1)
    pad = checks.pair(padding, "padding", 0)
    if kernel is None and (stride is not None or pad != (0, 0)):
        raise ValueError("kernel: expected a kernel with stride or padding, got None")
    checks.pool_padding(pad, size)
    pool = (size, step, pad, bool(ceil_mode), bool(count_include_pad))
    out_size = pool_out_size(x.shape, size, step, pad, (1, 1), bool(ceil_mode))
    checks.image_covers_kernel(out_size, "kernel")
    ns = namespace(backend)
    if wants_grad(x):
        return apply(_AvgPool, ns, pool, x)
    return ns.avg_pool_fwd(as_dense(x), *NO_PROLOGUE, *pool)
