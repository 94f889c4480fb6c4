"""Calls the ops with plain modules. Each function returns None where the op must not run.

"Must not": the tensors are not what the kernels take (then torch's own modules do what they do, or
raise what they raise), or something is active that a fused op cannot serve (functorch, forward-mode
gradients). Modules are of the classes in kinds.py, without hooks: the plan's guard saw to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.bn_act import run_bn_act
from ..ops.conv_act import run_conv_act
from ..ops.conv_bn_act import run_conv_bn_act
from ..ops.direct import transformed
from ..ops.fakes import pool_out_size
from ..ops.layers import Layer, act_spec, pad_extra
from ..ops.pool import max_pool_args
from ..ops.preact_block import PreactSpec, PreactTensors, run_preact_block
from ..ops.residual_block import run_residual_block
from ..ops.residual_stage import StageBlock, StageStem, run_residual_stage
from ..ops.stem import run_stem
from . import inference
from .layers import (
    Call,
    batch_norm,
    conv_bn_layer,
    few_taps,
    is_plain,
    padded_layer,
    plain_conv,
    start,
)


def _input(call: Call, conv: Any) -> Tensor:
    """x in the layout torch's convolution would give its output: channels_last if the weight is."""
    x = call.x
    if x.is_contiguous(memory_format=torch.channels_last):
        return x
    weight = conv.weight
    if weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _addable(residual: Any, size: Any, x: Tensor) -> bool:
    """Whether residual has the size and dtype of what it is added to: torch would not broadcast."""
    if not is_plain(residual) or list(residual.shape) != list(size) or residual.device != x.device:
        return False
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return residual.dtype == torch.get_autocast_dtype(x.device.type)
    return residual.dtype == x.dtype


def conv_bn_act(
    x: Tensor, conv: Any, bn: Any, residual: Any, act: str | None, slope: float
) -> Tensor | None:
    """act(bn(conv(x)) + residual)"""
    z = inference.chain(x, residual, [(conv, bn)], None, act, slope)
    if z is not None:
        return z
    call = start(x)
    made = None if call is None else padded_layer(call, conv, bn, x.shape)
    if call is None or made is None:
        return None
    layer, extra = made
    if residual is not None and not _addable(residual, layer.out_size, x):
        return None
    h = pad_extra(_input(call, conv), extra)
    return run_conv_bn_act(h, call.ns, layer, act_spec(act, slope), residual=residual)


def bn_act(x: Tensor, bn: Any, residual: Any, act: str | None, slope: float) -> Tensor | None:
    """act(bn(x) + residual)"""
    call = start(x, convolves=False)
    found = None if call is None else batch_norm(call, bn, None, x.shape)
    if call is None or found is None:
        return None
    if residual is not None and not (_addable(residual, x.shape, x) and residual.dtype == x.dtype):
        return None
    return run_bn_act(x, call.ns, *found, act_spec(act, slope), residual=residual)


def conv_act(x: Tensor, conv: Any, residual: Any, act: str | None, slope: float) -> Tensor | None:
    """act(conv(x) + residual)"""
    call = start(x)
    made = None if call is None else plain_conv(call, conv, x.shape)
    if call is None or made is None:
        return None
    if residual is not None and not _addable(residual, made.out_size, x):
        return None
    h = pad_extra(_input(call, conv), made.extra)
    spec = act_spec(act, slope)
    return run_conv_act(h, call.ns, made.weight, made.bias, made.args, spec, residual=residual)


def _block_layers(
    call: Call, size: Any, layers: Any, downsample: Any
) -> tuple[list[Layer], Layer | None] | None:
    """Main branch and projection of a block for an input of `size`."""
    main: list[Layer] = []
    h_size = size
    for conv, bn in layers:
        layer = conv_bn_layer(call, conv, bn, h_size)
        if layer is None:
            return None
        main.append(layer)
        h_size = layer.out_size
    if downsample is None:
        return main, None
    projection = conv_bn_layer(call, downsample[0], downsample[1], size)
    if projection is None or projection.out_size != h_size:
        return None
    return main, projection


def residual_block(
    x: Tensor, shortcut: Any, layers: Any, downsample: Any, act: str | None, slope: float
) -> Tensor | None:
    """A residual block; layers and downsample are pairs of a convolution and a batch norm."""
    z = inference.chain(x, x if shortcut is None else shortcut, layers, downsample, act, slope)
    if z is not None:
        return z
    call = start(x)
    made = None if call is None else _block_layers(call, x.shape, layers, downsample)
    if call is None or made is None:
        return None
    main, projection = made
    added = x if shortcut is None else shortcut
    if downsample is None and not _addable(added, main[-1].out_size, x):
        return None
    h, spec = _input(call, layers[0][0]), act_spec(act, slope)
    return run_residual_block(h, call.ns, main, projection, spec, shortcut=shortcut)


def residual_stage(x: Tensor, stem: Any, blocks: Any) -> Tensor | None:
    """Residual blocks in a row, behind a stem if there is one.

    stem: None or (conv, bn, pool, act, slope). Each block is (layers, downsample, act, slope).
    """
    z = _stage_inference(x, stem, blocks)
    if z is not None:
        return z
    call = start(x)
    if call is None:
        return None
    made, size = None, list(x.shape)
    if stem is not None:
        made = _stage_stem(call, *stem)
        if made is None:
            return None
        size = made.out_size
    rows = []
    for i, (layers, downsample, act, slope) in enumerate(blocks):
        block = _block_layers(call, size, layers, downsample)
        if block is None:
            return None
        before, size = size, block[0][-1].out_size
        if downsample is None:
            first = i == 0 and stem is None
            if size != before or (first and not _addable(x, size, x)):
                return None
        rows.append(StageBlock(*block, act_spec(act, slope)))
    first_conv = blocks[0][0][0][0] if stem is None else stem[0]
    return run_residual_stage(_input(call, first_conv), call.ns, made, rows)


def _stage_inference(x: Tensor, stem: Any, blocks: Any) -> Tensor | None:
    if stem is None or stem[3:] == blocks[0][2:]:
        return inference.row(x, stem, blocks)
    h = inference.stem(x, *stem)
    return None if h is None else inference.row(h, None, blocks)


def _stage_stem(
    call: Call, conv: Any, bn: Any, pool: Any, act: str | None, slope: float
) -> StageStem | None:
    made = padded_layer(call, conv, bn, call.x.shape)
    if made is None or not (pool is None or few_taps(pool)):
        return None
    layer, extra = made
    spec = act_spec(act, slope)
    if pool is None:
        return StageStem(layer, extra, spec, None, layer.out_size)
    args = _pool_args(pool)
    size = pool_out_size(layer.out_size, *args)
    return StageStem(layer, extra, spec, args, size) if min(size[2:]) > 0 else None


def preact_block(
    x: Tensor, bns: Any, convs: Any, projection: Any, act: str | None, slope: float
) -> Tensor | None:
    """A pre-activation block: conv(act(bn(...))) + (projection(act(bn(x))) or x)."""
    call = start(x)
    if call is None:
        return None
    made, norms, bias = [], [], None
    size: Any = list(x.shape)
    for bn, conv in zip(bns, convs, strict=True):
        plain = plain_conv(call, conv, size)
        norm = batch_norm(call, bn, bias, size)
        if plain is None or norm is None or plain.extra != (0, 0):
            return None
        made.append(plain)
        norms.append(norm)
        size, bias = plain.out_size, plain.bias
    skip = None
    if projection is not None:
        skip = plain_conv(call, projection, x.shape)
        if skip is None or skip.extra != (0, 0) or skip.out_size != size:
            return None
    elif not _addable(x, size, x):
        return None
    spec = PreactSpec(
        tuple(mode for _, mode in norms),
        tuple(conv.args for conv in made),
        None if skip is None else skip.args,
        act_spec(act, slope),
    )
    weights = [conv.weight for conv in (*made, *([skip] if skip else []))]
    biases = [bias, None if skip is None else skip.bias]
    tensors = PreactTensors(weights, biases, [params for params, _ in norms])
    return run_preact_block(_input(call, convs[0]), call.ns, spec, tensors)


def stem(x: Tensor, conv: Any, bn: Any, pool: Any, act: str | None, slope: float) -> Tensor | None:
    """pool(act(bn(conv(x)))) with a max pooling"""
    z = inference.stem(x, conv, bn, pool, act, slope)
    if z is not None:
        return z
    call = start(x)
    made = None if call is None else _stage_stem(call, conv, bn, pool, act, slope)
    if call is None or made is None:
        return None
    h = pad_extra(_input(call, conv), made.extra)
    return run_stem(h, call.ns, made.layer, made.act, made.pool)


def max_pool(x: Tensor, pool: Any) -> Tensor | None:
    """pool(x) with nn.MaxPool2d"""
    if not is_plain(x) or transformed() or not few_taps(pool):
        return None
    return ops.max_pool(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
    )


def avg_pool(x: Tensor, pool: Any) -> Tensor | None:
    """pool(x) with nn.AvgPool2d, or nn.AdaptiveAvgPool2d to one pixel"""
    if not is_plain(x) or transformed():
        return None
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        return ops.avg_pool(x)
    return ops.avg_pool(
        x, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad
    )


def linear(x: Tensor, layer: Any) -> Tensor:
    """layer(x) with nn.Linear"""
    z = inference.linear(x, layer)
    result: Tensor = layer(x) if z is None else z
    return result


def _pool_args(pool: Any) -> Any:
    return max_pool_args(pool.kernel_size, pool.stride, pool.padding, 1, False)
