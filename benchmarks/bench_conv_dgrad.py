"""conv_dgrad: the input's gradient, plus that of another branch where a block begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .cases import Case, Maker, conv_need, primitive
from .layers import Layers, has_prologue

OPS = ("conv_dgrad",)


def input_gradient(dy: Tensor, x: Tensor, w: Tensor, conv: Any) -> Tensor:
    stride, padding, dilation, groups = conv
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
    )[0]


def eager(dy: Tensor, x: Tensor, w: Tensor, branch: Tensor | None, conv: Any) -> Tensor:
    dx = input_gradient(dy, x, w, conv)
    return dx if branch is None else dx.add_(branch)


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.convs:
        if layer.c < 8:
            continue  # images want no gradient
        shape = layer.at(make.batch)
        x, w, dy = make.activation(shape.x_size), make.weight(shape), make.activation(shape.y_size)
        branch = None if has_prologue(shape) else make.activation(shape.x_size, 3)
        geometry = make.geometry(shape)
        yield Case(
            "conv_dgrad", shape.id, shape.count, primitive("conv_dgrad"),
            (dy, w, branch, list(x.shape), *geometry),
            eager, (dy, x, w, branch, geometry[:4]), need=conv_need(shape),
        )  # fmt: skip
