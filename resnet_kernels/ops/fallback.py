"""What a primitive runs where no kernel of ours serves its device.

The conv ops are the declared fallback: torch's own convolution with our BN primitives around it.
Every other op falls back to its definition in reference/. Tensors are as in schemas.py; outputs lie
in the input's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import reference
from .acts import IDENTITY
from .layout import conv_memory_format

_ops = torch.ops.resnet_kernels

DECLARED = frozenset(
    {
        "conv_fwd",
        "conv_fwd_stats",
        "conv_dgrad",
        "conv_dgrad_bn",
        "conv_apply_dgrad",
        "conv_apply_dgrad_bn",
        "conv_wgrad",
    }
)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """fp32 for fp16 on the CPU, where torch's fp16 convolution is 6 to 60 times slower."""
    if x.dtype == torch.float16 and x.device.type == "cpu":
        return torch.float32
    return x.dtype


def _outside_autocast(function: Callable[..., Any], device_type: str, *args: Any) -> Any:
    if not torch.is_autocast_enabled(device_type):
        return function(*args)
    with torch.autocast(device_type, enabled=False):
        return function(*args)


def _in_layout(t: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """t in this dtype and layout. A 1x1 filter fits both layouts, whatever its strides say."""
    if t.dtype == dtype and t.is_contiguous(memory_format=layout):
        return t
    return t.to(dtype, memory_format=layout)


def _convolution(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    layout = conv_memory_format(x, w)
    dtype = _compute_dtype(x)
    y = _outside_autocast(
        torch.ops.aten.convolution.default,
        x.device.type,
        x.to(dtype),
        _in_layout(w, dtype, layout),
        None if bias is None else bias.to(dtype),
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
    )
    return _in_layout(y, x.dtype, layout)


def _convolution_backward(
    dy: Tensor, x: Tensor, w: Tensor, conv: Sequence[Any], output_mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    stride, padding, dilation, groups, _ = conv
    dtype = _compute_dtype(dy)
    layout = conv_memory_format(x, w)
    return _outside_autocast(
        torch.ops.aten.convolution_backward.default,
        dy.device.type,
        _in_layout(dy, dtype, layout),
        x.to(dtype),
        _in_layout(w, dtype, layout),
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        output_mask,
    )


def _prologue(
    x: Tensor, scale: Tensor | None, bias: Tensor | None, act: int, slope: float
) -> Tensor:
    if scale is None or bias is None:
        return x
    return _ops.bn_act_fwd(x, scale, bias, None, None, None, act, slope)


def conv_fwd(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_bias: Tensor | None,
    in_act: int,
    in_slope: float,
    out_scale: Tensor | None,
    out_bias: Tensor | None,
    residual: Tensor | None,
    out_act: int,
    out_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    z = _prologue(x, in_scale, in_bias, in_act, in_slope)
    if out_scale is None and residual is None and out_act == IDENTITY:
        return _convolution(z, w, out_bias, stride, padding, dilation, groups)
    y = _convolution(z, w, None, stride, padding, dilation, groups)
    dtype = reference.accumulate_dtype(x.dtype)
    scale = x.new_ones(w.shape[0], dtype=dtype) if out_scale is None else out_scale
    bias = x.new_zeros(w.shape[0], dtype=dtype) if out_bias is None else out_bias
    return _ops.bn_act_fwd(y, scale, bias, residual, None, None, out_act, out_slope)


def conv_fwd_stats(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_bias: Tensor | None,
    in_act: int,
    in_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    z = _prologue(x, in_scale, in_bias, in_act, in_slope)
    y = _convolution(z, w, None, stride, padding, dilation, groups)
    return y, _ops.bn_stats(y)


def _input_gradient(
    dy: Tensor,
    w: Tensor,
    branch: Tensor | None,
    input_size: Sequence[int],
    layout: torch.memory_format,
    conv: Sequence[Any],
) -> Tensor:
    """Fresh dx in `layout`, with the branch's gradient added in place."""
    x = torch.empty(input_size, dtype=_compute_dtype(dy), device=dy.device, memory_format=layout)
    dx = _convolution_backward(dy, x, w, conv, [True, False, False])[0]
    dx = _in_layout(dx, dy.dtype, layout)
    return dx if branch is None else dx.add_(branch)


def conv_dgrad(
    dy: Tensor,
    w: Tensor,
    branch: Tensor | None,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    conv = (stride, padding, dilation, groups, tf32)
    return _input_gradient(dy, w, branch, input_size, conv_memory_format(dy, w), conv)


def conv_dgrad_bn(
    dy: Tensor,
    w: Tensor,
    branch: Tensor | None,
    y_prev: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    act: int,
    slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    conv = (stride, padding, dilation, groups, tf32)
    layout = conv_memory_format(y_prev, y_prev)
    dz = _input_gradient(dy, w, branch, y_prev.shape, layout, conv)
    return _ops.bn_act_bwd_reduce_add(dz, y_prev, mean, rstd, scale, bias, None, mask, act, slope)


def _dy(g: Tensor, y: Tensor, mean: Tensor, abc: Tensor) -> Tensor:
    return _ops.bn_bwd_apply(g, y, mean, abc, None, None, IDENTITY, 0.0)


def conv_apply_dgrad(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    dy = _dy(g, y, mean, abc)
    return conv_dgrad(dy, *rest), dy


def conv_apply_dgrad_bn(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dy = _dy(g, y, mean, abc)
    return *conv_dgrad_bn(dy, *rest), dy


def conv_wgrad(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_bias: Tensor | None,
    in_act: int,
    in_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    z = _prologue(x, in_scale, in_bias, in_act, in_slope)
    conv = (stride, padding, dilation, groups, tf32)
    dw = _convolution_backward(dy, z, w, conv, [False, True, False])[1]
    strides = zip(w.shape, w.stride(), dw.stride(), strict=True)
    if dw.dtype == w.dtype and all(size == 1 or s == t for size, s, t in strides):
        return dw if dw.stride() == w.stride() else dw.as_strided(w.shape, w.stride())
    return torch.empty_like(w).copy_(dw)


_CONV: dict[str, Callable[..., Any]] = {
    "conv_fwd": conv_fwd,
    "conv_fwd_stats": conv_fwd_stats,
    "conv_dgrad": conv_dgrad,
    "conv_dgrad_bn": conv_dgrad_bn,
    "conv_apply_dgrad": conv_apply_dgrad,
    "conv_apply_dgrad_bn": conv_apply_dgrad_bn,
    "conv_wgrad": conv_wgrad,
}

_DEFINED = (
    "bn_stats",
    "bn_finalize",
    "bn_affine",
    "bn_act_fwd",
    "bn_act_fwd_mask",
    "bn_act_bwd_reduce",
    "bn_act_bwd_reduce_add",
    "bn_act_bwd_reduce_dual",
    "bn_bwd_finalize",
    "bn_bwd_apply",
    "max_pool_fwd",
    "max_pool_bwd",
    "avg_pool_fwd",
    "avg_pool_bwd",
)

FALLBACKS: dict[str, Callable[..., Any]] = _CONV | {
    name: getattr(reference, name) for name in _DEFINED
}
