"""A residual block's training step as one call each way: csrc/torch/cpu/block_training.cpp.

It runs what block_steps.py runs, bit for bit, without the way to Python between the kernels: where
all of them are the CPU's own, and nobody watches the single ops.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from . import library
from .acts import SIGN_ACTS
from .block_parts import (
    NO_BUFFERS,
    BlockGrads,
    BlockKept,
    BlockNeeds,
    BlockParams,
    BlockSpec,
    kept_from_flat,
)
from .direct import PLAIN, is_direct

_NATIVE = library.NAMESPACES["native"]
_OPS = torch.ops.resnet_kernels
_HAS_KERNELS = library.has_native_kernel("block_training_forward", "cpu")
_SERVED_TYPES = frozenset((*PLAIN, type(None)))
# Of a layer: gamma, beta, conv_bias, in front of the buffers; those with the weight have gradients.
_VECTORS = 3
_GRADS = 1 + _VECTORS


def serves(ns: Any, spec: BlockSpec, x: Tensor, others: Iterable[Tensor | None]) -> bool:
    """Whether one call may run this block, forward or backward; others: all tensors beside x."""
    return (
        _HAS_KERNELS
        and is_direct(x)
        and ns.name == _NATIVE
        and spec.act.act in SIGN_ACTS
        and all(layer.mode.batch_stats and layer.mode.group is None for layer in spec.layers)
        and _SERVED_TYPES.issuperset(map(type, others))
    )


def _shape(spec: BlockSpec) -> tuple[Any, ...]:
    """geometry of the layers, how many are no projection, act, slope."""
    geometry: list[int] = []
    for (stride, padding, dilation, groups, _), _mode in spec.layers:
        geometry += (*stride, *padding, *dilation, groups)
    return geometry, len(spec.convs), *spec.act


def forward(
    ns: Any, spec: BlockSpec, x: Tensor, shortcut: Tensor | None, params: BlockParams
) -> tuple[Tensor, BlockKept] | None:
    """block_forward. None: not served, and nothing has happened."""
    weights = params.weights
    vectors = [v for layer in params.vectors for v in layer[:_VECTORS]]
    buffers = [v for layer in params.vectors for v in layer[_VECTORS:]]
    if not serves(ns, spec, x, (shortcut, *weights, *vectors, *buffers)):
        return None
    geometry, *rest = _shape(spec)
    momenta = [layer.mode.momentum for layer in spec.layers]
    eps = [layer.mode.eps for layer in spec.layers]
    out, *kept = _OPS.block_training_forward(
        x, shortcut, weights, vectors, buffers, geometry, momenta, eps, *rest
    )
    return out, kept_from_flat(kept)


def backward(
    ns: Any,
    spec: BlockSpec,
    dout: Tensor,
    x: Tensor,
    has_shortcut: bool,
    params: BlockParams,
    kept: BlockKept,
    needs: BlockNeeds,
) -> BlockGrads | None:
    """block_backward. None: not served."""
    weights, gammas = params.weights, [layer.gamma for layer in params.vectors]
    flat = kept.flat()
    if not serves(ns, spec, x, (dout, *weights, *gammas, *flat)):
        return None
    needed = [needs.x, needs.shortcut]
    for layer in needs.layers:
        needed += layer[:_GRADS]
    dx, dshortcut, *rest = _OPS.block_training_backward(
        dout, x, has_shortcut, weights, gammas, flat, needed, *_shape(spec)
    )
    rows = range(0, len(rest), _GRADS)
    return BlockGrads(dx, dshortcut, [(*rest[i : i + _GRADS], *NO_BUFFERS) for i in rows])
