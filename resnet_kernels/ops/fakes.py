"""Fake kernels: shape, dtype and strides of every primitive's outputs, for tracing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import conv_memory_format


def stats_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of BN statistics and per-channel vectors: fp64 for fp64 activations, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def conv_out_size(
    size: Sequence[int],
    w_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """[N, K, P, Q] of a convolution of [N, C, H, W] with [K, C / groups, R, S]."""
    spatial = [
        (size[i + 2] + 2 * padding[i] - dilation[i] * (w_size[i + 2] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    return [size[0], w_size[0], *spatial]


def pool_out_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> list[int]:
    """[N, C, P, Q] of a pooling of [N, C, H, W]; the last window starts inside the padded input."""
    spatial = []
    for i in range(2):
        step = stride[i] or kernel[i]
        span = size[i + 2] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
        out = (span + (step - 1 if ceil_mode else 0)) // step + 1
        if ceil_mode and (out - 1) * step >= size[i + 2] + padding[i]:
            out -= 1
        spatial.append(out)
    return [size[0], size[1], *spatial]


def _vectors(like: Tensor, rows: int, channels: int) -> Tensor:
    return like.new_empty((rows, channels), dtype=stats_dtype(like.dtype))


def _conv_y(x: Tensor, w: Tensor, conv: Sequence[Any]) -> Tensor:
    size = conv_out_size(x.shape, w.shape, conv[0], conv[1], conv[2])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=conv_memory_format(x, w))


def _layout_like(x: Tensor, size: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        size,
        dtype=dtype or x.dtype,
        device=x.device,
        memory_format=conv_memory_format(x, x),
    )


def _conv_fwd(x: Tensor, w: Tensor, *rest: Any) -> Tensor:
    return _conv_y(x, w, rest[9:])


def _conv_fwd_stats(x: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _conv_y(x, w, rest[4:]), _vectors(x, 3, w.shape[0])


def _bn_stats(x: Tensor) -> Tensor:
    return _vectors(x, 3, x.shape[1])


def _bn_finalize(stats: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    channels = stats.shape[2]
    return (*(stats.new_empty(channels) for _ in range(4)), stats.new_empty(1))


def _bn_affine(running_mean: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    dtype = stats_dtype(running_mean.dtype)
    return tuple(running_mean.new_empty(running_mean.shape, dtype=dtype) for _ in range(4))


def _bn_act_fwd(y: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(y)


def _bn_act_fwd_mask(y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(y), y.new_empty((y.numel() + 7) // 8, dtype=torch.uint8)


def _bn_act_bwd_reduce(dz: Tensor, y: Tensor, *rest: Any) -> Tensor:
    return _vectors(y, 2, y.shape[1])


def _bn_act_bwd_reduce_add(dz: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(y), _vectors(y, 2, y.shape[1])


def _bn_act_bwd_reduce_dual(dz: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(y), _vectors(y, 2, y.shape[1]), _vectors(y, 2, y.shape[1])


def _bn_bwd_finalize(sums: Tensor, *rest: Any) -> Tensor:
    return sums.new_empty((3, sums.shape[1]))


def _bn_bwd_apply(g: Tensor, y: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(y)


def _conv_dgrad(dy: Tensor, w: Tensor, branch: Tensor | None, input_size: Any, *r: Any) -> Tensor:
    return torch.empty(
        list(input_size),
        dtype=dy.dtype,
        device=dy.device,
        memory_format=conv_memory_format(dy, w),
    )


def _conv_dgrad_bn(
    dy: Tensor, w: Tensor, branch: Tensor | None, y_prev: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(y_prev), _vectors(y_prev, 2, y_prev.shape[1])


def _conv_apply_dgrad(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, w: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return _conv_dgrad(y, w, *rest), torch.empty_like(y)


def _conv_apply_dgrad_bn(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, w: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return *_conv_dgrad_bn(y, w, *rest), torch.empty_like(y)


def _conv_wgrad(dy: Tensor, x: Tensor, w: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(w)


def _max_pool_fwd(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    kernel, stride, padding, dilation, ceil_mode = rest[4:]
    size = pool_out_size(x.shape, kernel, stride, padding, dilation, ceil_mode)
    return _layout_like(x, size), _layout_like(x, size, torch.uint8)


def _max_pool_bwd(dz: Tensor, indices: Tensor, input_size: Any, *rest: Any) -> Tensor:
    return _layout_like(dz, list(input_size))


def _avg_pool_fwd(x: Tensor, *rest: Any) -> Tensor:
    kernel, stride, padding, ceil_mode, _ = rest[4:]
    return _layout_like(x, pool_out_size(x.shape, kernel, stride, padding, (1, 1), ceil_mode))


def _avg_pool_bwd(dz: Tensor, input_size: Any, *rest: Any) -> Tensor:
    return _layout_like(dz, list(input_size))


FAKES: dict[str, Callable[..., Any]] = {
    "conv_fwd": _conv_fwd,
    "conv_fwd_stats": _conv_fwd_stats,
    "bn_stats": _bn_stats,
    "bn_finalize": _bn_finalize,
    "bn_affine": _bn_affine,
    "bn_act_fwd": _bn_act_fwd,
    "bn_act_fwd_mask": _bn_act_fwd_mask,
    "bn_act_bwd_reduce": _bn_act_bwd_reduce,
    "bn_act_bwd_reduce_add": _bn_act_bwd_reduce_add,
    "bn_act_bwd_reduce_dual": _bn_act_bwd_reduce_dual,
    "bn_bwd_finalize": _bn_bwd_finalize,
    "bn_bwd_apply": _bn_bwd_apply,
    "conv_dgrad": _conv_dgrad,
    "conv_dgrad_bn": _conv_dgrad_bn,
    "conv_apply_dgrad": _conv_apply_dgrad,
    "conv_apply_dgrad_bn": _conv_apply_dgrad_bn,
    "conv_wgrad": _conv_wgrad,
    "max_pool_fwd": _max_pool_fwd,
    "max_pool_bwd": _max_pool_bwd,
    "avg_pool_fwd": _avg_pool_fwd,
    "avg_pool_bwd": _avg_pool_bwd,
}
