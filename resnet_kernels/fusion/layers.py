"""Layers of plain modules in the normal form of the ops; each attribute is read once.

The ops' public functions check bundles of arguments and say what is wrong; here None stands for
what the ops must not run, and torch's own modules then do what they do, or raise what they raise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..ops import checks
from ..ops.bn_layer import BNMode, BNParams
from ..ops.direct import PLAIN, transformed
from ..ops.fakes import conv_out_size, stats_dtype
from ..ops.layers import (
    ConvArgs,
    Layer,
    LayerSpec,
    autocast_dtype,
    conv_geometry,
    vector_for,
    weight_for,
)
from ..ops.library import namespace
from ..ops.pool import MAX_TAPS

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MISSING = object()


class Call(NamedTuple):
    """What the layers of one call go by: the input as the ops will see it.

    casts: autocast is active, so that parameters may be of any dtype.
    """

    ns: Any
    x: Tensor
    casts: bool
    vector_dtype: torch.dtype


def is_plain(x: Any) -> bool:
    """Whether x is an activation that the ops take."""
    return (
        type(x) in PLAIN
        and x.dim() == 4
        and x.dtype in _DTYPES
        and x.device.type in ("cpu", "cuda")
        and x.layout is torch.strided
    )


def start(x: Any, convolves: bool = True) -> Call | None:
    """The Call of an input, if ops may run at all; autocast casts it only for a convolution."""
    if not is_plain(x) or transformed():
        return None
    casts = torch.is_autocast_enabled(x.device.type)
    like = x.to(autocast_dtype(x)) if casts and convolves else x
    return Call(namespace(), like, casts, stats_dtype(like.dtype))


def _fits(tensor: Any, call: Call) -> bool:
    """Whether torch would take this weight or bias of a convolution with x as it is."""
    return (
        type(tensor) in PLAIN
        and tensor.device == call.x.device
        and (tensor.dtype == call.x.dtype or call.casts)
    )


def _vector_fits(tensor: Any, call: Call) -> bool:
    """Whether torch would take this vector of a batch norm with x as it is."""
    if type(tensor) not in PLAIN or tensor.device != call.x.device:
        return False
    dtype = tensor.dtype
    mixed = dtype == torch.float32 and call.x.dtype != torch.float64
    return dtype == call.x.dtype or mixed or call.casts


class PlainConv(NamedTuple):
    """A convolution in the form of the primitives; extra: padding at the bottom and right."""

    weight: Tensor
    bias: Tensor | None
    args: ConvArgs
    extra: tuple[int, int]
    out_size: list[int]


def plain_conv(call: Call, conv: Any, size: Any) -> PlainConv | None:
    """A convolution for an input of `size`."""
    own = conv._parameters
    weight, bias = own.get("weight", _MISSING), own.get("bias", _MISSING)
    if conv.padding_mode != "zeros" or not _fits(weight, call):
        return None
    if bias is not None and not _fits(bias, call):
        return None
    filter_size, groups = weight.shape, conv.groups
    if filter_size[1] * groups != size[1] or filter_size[0] % groups:
        return None
    args, extra = conv_geometry(call.ns, call.x, weight, conv)
    padded = size if extra == (0, 0) else [*size[:2], size[2] + extra[0], size[3] + extra[1]]
    out_size = conv_out_size(padded, filter_size, *args[:3])
    if out_size[2] < 1 or out_size[3] < 1:
        return None
    return PlainConv(weight_for(weight, call.x), vector(bias, call), args, extra, out_size)


def conv_bn_layer(call: Call, conv: Any, bn: Any, size: Any) -> Layer | None:
    """The layer of a convolution, padded alike on both sides, and its batch norm."""
    made = padded_layer(call, conv, bn, size)
    return made[0] if made is not None and made[1] == (0, 0) else None


def padded_layer(call: Call, conv: Any, bn: Any, size: Any) -> tuple[Layer, tuple[int, int]] | None:
    """The layer of a convolution and its batch norm for an input of `size`; extra padding."""
    plain = plain_conv(call, conv, size)
    found = None if plain is None else batch_norm(call, bn, plain.bias, plain.out_size)
    if plain is None or found is None:
        return None
    params, mode = found
    return Layer(plain.weight, params, LayerSpec(plain.args, mode), plain.out_size), plain.extra


def batch_norm(
    call: Call, bn: Any, conv_bias: Tensor | None, size: Any
) -> tuple[BNParams, BNMode] | None:
    """What the ops need of a batch norm over `size`, as its forward would use it."""
    buffers = bn._buffers
    # FrozenBatchNorm2d keeps all of its vectors as buffers.
    frozen = not isinstance(bn, nn.modules.batchnorm._BatchNorm)
    own = buffers if frozen else bn._parameters
    gamma, beta = own.get("weight", _MISSING), own.get("bias", _MISSING)
    mean, var = buffers.get("running_mean", _MISSING), buffers.get("running_var", _MISSING)
    for value in (gamma, beta, mean, var):
        if value is not None and not _vector_fits(value, call):
            return None
    eps = bn.eps
    if (mean is None) != (var is None) or not isinstance(eps, (int, float)) or not eps > 0:
        return None
    if frozen:
        # Plain arithmetic, not a layer to autocast: vectors of another dtype would promote x.
        if any(v is not None and v.dtype != call.x.dtype for v in (gamma, beta, mean, var)):
            return None
        mode = BNMode(False, None, eps, None)
        return _params(call, gamma, beta, conv_bias, vector(mean, call), vector(var, call)), mode
    batch_stats, momentum, tracked = bn.training or mean is None, bn.momentum, None
    if not batch_stats:
        mean, var = vector(mean, call), vector(var, call)
    elif bn.training and bn.track_running_stats:
        tracked = buffers.get("num_batches_tracked", _MISSING)
        if not (_counts(tracked, mean, momentum, call) and _updatable(mean, var)):
            return None
    elif bn.training:
        mean = var = None
    group = _sync_group(bn)
    if batch_stats and group is None:
        checks.more_than_one_value(size)
    mode = BNMode(batch_stats, momentum, eps, group)
    return _params(call, gamma, beta, conv_bias, mean, var, tracked), mode


def _params(
    call: Call,
    gamma: Tensor | None,
    beta: Tensor | None,
    conv_bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    tracked: Tensor | None = None,
) -> BNParams:
    return BNParams(vector(gamma, call), vector(beta, call), conv_bias, mean, var, tracked)


def _updatable(mean: Tensor | None, var: Tensor | None) -> bool:
    """Whether the kernels can write the running statistics where they lie."""
    return mean is None or var is None or (mean.is_contiguous() and var.is_contiguous())


def _counts(tracked: Any, mean: Tensor | None, momentum: Any, call: Call) -> bool:
    """Whether the counter of batches and the momentum are such that the ops can use them."""
    if momentum is not None and not isinstance(momentum, (int, float)):
        return False
    if tracked is None:
        return momentum is not None or mean is None
    return (
        type(tracked) in PLAIN
        and tracked.dtype == torch.int64
        and tracked.numel() == 1
        and tracked.device == call.x.device
    )


def vector(value: Tensor | None, call: Call) -> Tensor | None:
    """A vector [K] as the kernels take it."""
    if value is None or (value.dtype == call.vector_dtype and value.is_contiguous()):
        return value
    return vector_for(value, call.x)


def _sync_group(bn: Any) -> Any:
    """The process group a SyncBatchNorm reduces over now, if any."""
    if not isinstance(bn, nn.SyncBatchNorm) or not bn.training:
        return None
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    group = bn.process_group or distributed.group.WORLD
    return group if distributed.get_world_size(group) > 1 else None


def few_taps(pool: Any) -> bool:
    """Whether the indices of a window fit in a byte."""
    size = pool.kernel_size
    return (size * size if isinstance(size, int) else size[0] * size[-1]) <= MAX_TAPS
