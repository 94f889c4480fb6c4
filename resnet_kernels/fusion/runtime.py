"""Calls the public ops with plain modules. Each function returns None where the op must not run.

"Must not": the tensors are not what the kernels take (then torch's own modules do what they do, or
raise what they raise), or something is active that a fused op cannot serve (functorch, forward-mode
gradients). Modules are of the classes in kinds.py, without hooks: the plan's guard saw to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..ops import BN, Conv, ConvBN
from ..ops.fakes import pool_out_size

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PLAIN = (Tensor, nn.Parameter)
_MAX_TAPS = 255


def _plain(x: Any) -> bool:
    return (
        type(x) in _PLAIN
        and x.dim() == 4
        and x.dtype in _DTYPES
        and x.device.type in ("cpu", "cuda")
        and x.layout is torch.strided
    )


def _transformed() -> bool:
    """Whether functorch or forward-mode gradients are active."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def _matches(x: Tensor, weight: Any) -> bool:
    """Whether torch would take this weight with x as it is."""
    if type(weight) not in _PLAIN or weight.device != x.device:
        return False
    return weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)


def _conv_ready(conv: Any, x: Tensor) -> bool:
    return (
        conv.padding_mode == "zeros"
        and _matches(x, conv.weight)
        and (conv.bias is None or _matches(x, conv.bias))
    )


def _bn_ready(bn: Any, x: Tensor) -> bool:
    tensors = (bn.weight, bn.bias, bn.running_mean, bn.running_var)
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN or tensor.device != x.device:
            return False
        if tensor.dtype != x.dtype and (tensor.dtype != torch.float32 or x.dtype == torch.float64):
            return torch.is_autocast_enabled(x.device.type)
    if (bn.running_mean is None) != (bn.running_var is None):
        return False
    if not isinstance(bn, nn.modules.batchnorm._BatchNorm):
        return True
    updates = bn.training and bn.track_running_stats and bn.running_mean is not None
    return not (updates and bn.momentum is None and bn.num_batches_tracked is None)


def _batch_stats(bn: Any) -> bool:
    if not isinstance(bn, nn.modules.batchnorm._BatchNorm):
        return False
    return bool(bn.training or bn.running_mean is None)


def _sync_group(bn: Any) -> Any:
    """The process group a SyncBatchNorm reduces over now, if any."""
    if not isinstance(bn, nn.SyncBatchNorm) or not bn.training:
        return None
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    group = bn.process_group or distributed.group.WORLD
    return group if distributed.get_world_size(group) > 1 else None


def _bn_fields(bn: Any) -> dict[str, Any]:
    """What the ops need of a batch norm, as its forward would use it."""
    fields = {"gamma": bn.weight, "beta": bn.bias, "eps": bn.eps}
    if not isinstance(bn, nn.modules.batchnorm._BatchNorm):
        return fields | {"running_mean": bn.running_mean, "running_var": bn.running_var}
    if not bn.training or bn.track_running_stats:
        fields |= {"running_mean": bn.running_mean, "running_var": bn.running_var}
    if bn.training and bn.track_running_stats:
        fields["num_batches_tracked"] = bn.num_batches_tracked
    return fields | {
        "training": _batch_stats(bn),
        "momentum": bn.momentum,
        "process_group": _sync_group(bn),
    }


def _conv_fields(conv: Any) -> dict[str, Any]:
    return {
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
    }


def _conv_bn(conv: Any, bn: Any) -> ConvBN:
    return ConvBN(weight=conv.weight, conv_bias=conv.bias, **_conv_fields(conv), **_bn_fields(bn))


def _conv(conv: Any) -> Conv:
    return Conv(weight=conv.weight, bias=conv.bias, **_conv_fields(conv))


def _layer_ready(conv: Any, bn: Any, x: Tensor) -> bool:
    return _conv_ready(conv, x) and _bn_ready(bn, x)


def _input(x: Tensor, conv: Any) -> Tensor:
    """x in the layout torch's convolution would give its output: channels_last if the weight is."""
    weight = conv.weight
    if (
        not x.is_contiguous(memory_format=torch.channels_last)
        and weight.is_contiguous(memory_format=torch.channels_last)
        and not weight.is_contiguous()
    ):
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _out_size(conv: Any, size: Any) -> list[int]:
    """Size of a convolution's output; the ops check what they are given in full."""
    spatial = []
    for i in range(2):
        reach = conv.dilation[i] * (conv.kernel_size[i] - 1)
        if isinstance(conv.padding, str):
            padding = reach if conv.padding == "same" else 0
        else:
            padding = 2 * conv.padding[i]
        spatial.append((size[i + 2] + padding - reach - 1) // conv.stride[i] + 1)
    return [size[0], conv.out_channels, *spatial]


def _addable(residual: Any, size: Any, x: Tensor) -> bool:
    """Whether residual has the size and dtype of what it is added to: torch would not broadcast."""
    if not _plain(residual) or list(residual.shape) != list(size) or residual.device != x.device:
        return False
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return residual.dtype == torch.get_autocast_dtype(x.device.type)
    return residual.dtype == x.dtype


def conv_bn_act(
    x: Tensor, conv: Any, bn: Any, residual: Any, act: str | None, slope: float
) -> Tensor | None:
    """act(bn(conv(x)) + residual)"""
    if not (_plain(x) and _layer_ready(conv, bn, x)) or _transformed():
        return None
    if residual is not None and not _addable(residual, _out_size(conv, x.shape), x):
        return None
    return ops.conv_bn_act(
        _input(x, conv), conv.weight, conv_bias=conv.bias, residual=residual, act=act,
        negative_slope=slope, **_conv_fields(conv), **_bn_fields(bn),
    )  # fmt: skip


def bn_act(x: Tensor, bn: Any, residual: Any, act: str | None, slope: float) -> Tensor | None:
    """act(bn(x) + residual)"""
    if not (_plain(x) and _bn_ready(bn, x)) or _transformed():
        return None
    if residual is not None and not (_addable(residual, x.shape, x) and residual.dtype == x.dtype):
        return None
    return ops.bn_act(x, residual=residual, act=act, negative_slope=slope, **_bn_fields(bn))


def conv_act(x: Tensor, conv: Any, residual: Any, act: str | None, slope: float) -> Tensor | None:
    """act(conv(x) + residual)"""
    if not (_plain(x) and _conv_ready(conv, x)) or _transformed():
        return None
    if residual is not None and not _addable(residual, _out_size(conv, x.shape), x):
        return None
    return ops.conv_act(
        _input(x, conv), conv.weight, conv.bias, residual=residual, act=act,
        negative_slope=slope, **_conv_fields(conv),
    )  # fmt: skip


def _block_size(x: Tensor, size: Any, layers: Any, downsample: Any) -> Any:
    """Size of a block's output for an input like x of `size`; None if the op must not run it."""
    out_size = list(size)
    for conv, bn in layers:
        if not _layer_ready(conv, bn, x) or isinstance(conv.padding, str):
            return None
        out_size = _out_size(conv, out_size)
    if downsample is None:
        return out_size
    conv, bn = downsample
    if not _layer_ready(conv, bn, x) or isinstance(conv.padding, str):
        return None
    return out_size if _out_size(conv, size) == out_size else None


def residual_block(
    x: Tensor, shortcut: Any, layers: Any, downsample: Any, act: str | None, slope: float
) -> Tensor | None:
    """A residual block; layers and downsample are pairs of a convolution and a batch norm."""
    if not _plain(x) or _transformed():
        return None
    size = _block_size(x, x.shape, layers, downsample)
    if size is None:
        return None
    if downsample is None and not _addable(x if shortcut is None else shortcut, size, x):
        return None
    return ops.residual_block(
        _input(x, layers[0][0]),
        [_conv_bn(conv, bn) for conv, bn in layers],
        None if downsample is None else _conv_bn(*downsample),
        shortcut=shortcut,
        act=act,
        negative_slope=slope,
    )


def residual_stage(x: Tensor, stem: Any, blocks: Any) -> Tensor | None:
    """Residual blocks in a row, behind a stem if there is one.

    stem: None or (conv, bn, pool, act, slope). Each block is (layers, downsample, act, slope).
    """
    if not _plain(x) or _transformed():
        return None
    size = list(x.shape) if stem is None else _stem_size(x, *stem[:3])
    for i, (layers, downsample, _, _) in enumerate(blocks):
        before, size = size, None if size is None else _block_size(x, size, layers, downsample)
        if size is None:
            return None
        first = i == 0 and stem is None
        if downsample is None and (size != before or (first and not _addable(x, size, x))):
            return None
    bundles = [
        ops.Block(
            [_conv_bn(conv, bn) for conv, bn in layers],
            None if downsample is None else _conv_bn(*downsample),
            act,
            slope,
        )
        for layers, downsample, act, slope in blocks
    ]
    if stem is None:
        return ops.residual_stage(_input(x, blocks[0][0][0][0]), bundles)
    conv, bn, pool, act, slope = stem
    return ops.residual_stage(
        _input(x, conv), bundles, stem=_conv_bn(conv, bn), stem_act=act,
        stem_negative_slope=slope, pool=None if pool is None else _window(pool),
    )  # fmt: skip


def _stem_size(x: Tensor, conv: Any, bn: Any, pool: Any) -> Any:
    """Size of a stem's output; None if the op must not run it."""
    if not _layer_ready(conv, bn, x):
        return None
    size = _out_size(conv, x.shape)
    if pool is None:
        return size
    if not _few_taps(pool):
        return None
    kernel, stride, padding = ((v, v) if isinstance(v, int) else v for v in _window(pool))
    return pool_out_size(size, kernel, stride, padding, (1, 1), False)


def _window(pool: Any) -> tuple[Any, Any, Any]:
    return pool.kernel_size, pool.stride, pool.padding


def preact_block(
    x: Tensor, bns: Any, convs: Any, projection: Any, act: str | None, slope: float
) -> Tensor | None:
    """A pre-activation block: conv(act(bn(...))) + (projection(act(bn(x))) or x)."""
    if not _plain(x) or _transformed():
        return None
    size = list(x.shape)
    for bn, conv in zip(bns, convs, strict=True):
        if not _layer_ready(conv, bn, x) or isinstance(conv.padding, str):
            return None
        size = _out_size(conv, size)
    if projection is None:
        if not _addable(x, size, x):
            return None
    elif not _conv_ready(projection, x) or _out_size(projection, x.shape) != size:
        return None
    return ops.preact_block(
        _input(x, convs[0]),
        [BN(**_bn_fields(bn)) for bn in bns],
        [_conv(conv) for conv in convs],
        None if projection is None else _conv(projection),
        act=act,
        negative_slope=slope,
    )


def stem(x: Tensor, conv: Any, bn: Any, pool: Any, act: str | None, slope: float) -> Tensor | None:
    """pool(act(bn(conv(x)))) with a max pooling"""
    if not (_plain(x) and _layer_ready(conv, bn, x)) or _transformed() or not _few_taps(pool):
        return None
    return ops.stem(
        _input(x, conv),
        _conv_bn(conv, bn),
        act=act,
        negative_slope=slope,
        pool=_window(pool),
    )


def max_pool(x: Tensor, pool: Any) -> Tensor | None:
    """pool(x) with nn.MaxPool2d"""
    if not _plain(x) or _transformed() or not _few_taps(pool):
        return None
    return ops.max_pool(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
    )


def avg_pool(x: Tensor, pool: Any) -> Tensor | None:
    """pool(x) with nn.AvgPool2d, or nn.AdaptiveAvgPool2d to one pixel"""
    if not _plain(x) or _transformed():
        return None
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        return ops.avg_pool(x)
    return ops.avg_pool(
        x, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad
    )


def _few_taps(pool: Any) -> bool:
    """Whether the indices of a window fit in a byte."""
    size = pool.kernel_size
    return (size * size if isinstance(size, int) else size[0] * size[-1]) <= _MAX_TAPS
