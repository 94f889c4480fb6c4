"""Chains of layers and rows of blocks in one call: without gradients, on the CPU's own kernels.

The way from Python through the checks of each layer takes longer than a small convolution. Here
Python only reads the modules; chain_inference (csrc/torch/cpu) checks and runs. What it does not
serve comes back as None, and the ops with their gradients, dtypes and layouts take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops import library
from ..ops.layers import act_spec
from ..ops.packed_filter import inference_filter
from .layers import PLAIN, transformed

_NATIVE = library.NAMESPACES["native"]
# Pairs of a convolution and a batch norm in eval mode.
Pairs = Sequence[tuple[Any, Any]]
_HAS_KERNELS = library.has_native_kernel("conv_fwd", "cpu")


def serves(x: Any) -> bool:
    """Whether the call may go by chain_inference, as far as what surrounds it tells."""
    return (
        _HAS_KERNELS
        and not torch.is_grad_enabled()
        and type(x) in PLAIN
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
        and library.namespace().name == _NATIVE
    )


class _Layers:
    """Tensors and geometry of layers as chain_inference takes them."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.geometry: list[int] = []
        self.eps: list[float] = []

    def add(self, conv: Any, bn: Any) -> bool:
        """Appends a convolution and its batch norm; False where they are not of the plain kind."""
        own, vectors, buffers = conv._parameters, bn._parameters, bn._buffers
        weight, eps = own.get("weight"), bn.eps
        tensors = [
            weight,
            vectors.get("weight"),
            vectors.get("bias"),
            buffers.get("running_mean"),
            buffers.get("running_var"),
        ]
        if any(type(t) not in PLAIN for t in tensors) or own.get("bias") is not None:
            return False
        if bn.training or type(eps) is not float or conv.padding_mode != "zeros":
            return False
        pairs = conv.stride, conv.padding, conv.dilation
        if any(type(pair) is not tuple for pair in pairs):
            return False
        self.tensors += tensors
        self.geometry += (*pairs[0], *pairs[1], *pairs[2], conv.groups)
        self.eps.append(eps)
        inference_filter(torch.ops.resnet_kernels, weight)
        return True

    def add_block(self, layers: Pairs, projection: tuple[Any, Any] | None) -> bool:
        pairs = layers if projection is None else (*layers, projection)
        return all(self.add(conv, bn) for conv, bn in pairs)

    def run(
        self, x: Tensor, residual: Tensor | None, blocks: list[int], act: str | None, slope: float
    ) -> Tensor | None:
        return torch.ops.resnet_kernels.chain_inference(
            x, residual, self.tensors, self.geometry, self.eps, blocks, *act_spec(act, slope)
        )


_NOTHING, _RESIDUAL, _PROJECTION = range(3)


def chain(
    x: Tensor,
    residual: Tensor | None,
    layers: Pairs,
    projection: tuple[Any, Any] | None,
    act: str | None,
    slope: float,
) -> Tensor | None:
    """act(bn(conv(...act(bn(conv(x)))...)) + residual), the residual through `projection` first.

    None: not served.
    """
    if not serves(x) or not (residual is None or type(residual) in PLAIN):
        return None
    made = _Layers()
    if not made.add_block(layers, projection):
        return None
    adds = _NOTHING if residual is None else _RESIDUAL if projection is None else _PROJECTION
    other = None if residual is x else residual
    return made.run(x, other, [len(layers), adds], act, slope)


def row(
    x: Tensor, blocks: Sequence[tuple[Pairs, tuple[Any, Any] | None, str | None, float]]
) -> Tensor | None:
    """Residual blocks (layers, projection, act, slope) one after the other. None: not served."""
    if not serves(x):
        return None
    act, slope = blocks[0][2:]
    made = _Layers()
    spec: list[int] = []
    for layers, projection, *last in blocks:
        if last != [act, slope] or not made.add_block(layers, projection):
            return None
        spec += len(layers), _RESIDUAL if projection is None else _PROJECTION
    return made.run(x, None, spec, act, slope)
