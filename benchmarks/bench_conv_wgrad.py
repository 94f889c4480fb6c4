"""conv_wgrad: the filter's gradient; batch norm and relu in front are recomputed.

Stock PyTorch kept the activated input instead and reads it: only the convolution is timed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .cases import Affine, Case, Maker, Need, conv_need, primitive
from .layers import Layers, has_prologue

OPS = ("conv_wgrad",)


def eager(dy: Tensor, z: Tensor, w: Tensor, conv: Any) -> Tensor:
    stride, padding, dilation, groups = conv
    return torch.ops.aten.convolution_backward(
        dy, z, w, None, stride, padding, dilation, False, [0, 0], groups, [False, True, False]
    )[1]


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.convs:
        shape = layer.at(make.batch)
        x, w, before = make.activation(shape.x_size), make.weight(shape), make.before(shape)
        dy, geometry = make.activation(shape.y_size, 3), make.geometry(shape)
        z = Affine.apply(x, *Affine(*before[:2]).tensors).relu_() if has_prologue(shape) else x
        products, unread = conv_need(shape, x)
        need = Need(products, unread + w.numel() * w.element_size())  # w: only its strides
        yield Case(
            "conv_wgrad", shape.id, shape.count, primitive("conv_wgrad"),
            (dy, x, w, *before, *geometry), eager, (dy, z, w, geometry[:4]), need=need,
        )  # fmt: skip
