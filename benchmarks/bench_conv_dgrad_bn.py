"""conv_dgrad_bn: the input's gradient through the previous layer's relu, and its batch norm's sums.

Stock PyTorch: convolution, relu's gradient, and what its batch norm's backward does without dx.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .bench_bn_act_bwd_reduce import relu_gradient
from .bench_conv_dgrad import input_gradient
from .cases import RELU_ARGS, Case, Maker, Norm, conv_need, primitive, stock_backward
from .layers import Layers, has_prologue

OPS = ("conv_dgrad_bn",)


def eager(dy: Tensor, w: Tensor, z: Tensor, conv: Any, *kept: Any) -> tuple[Tensor, ...]:
    g = relu_gradient(input_gradient(dy, kept[0], w, conv), z)
    return g, *stock_backward(g, kept, False)


def wanted(g: Tensor, sums: Tensor) -> tuple[Tensor, ...]:
    return g, sums[1], sums[0]


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in filter(has_prologue, layers.convs):
        shape = layer.at(make.batch)
        w, dy = make.weight(shape), make.activation(shape.y_size)
        before = Norm(make.activation(shape.x_size, 3), make)
        geometry = make.geometry(shape)
        yield Case(
            "conv_dgrad_bn", shape.id, shape.count, primitive("conv_dgrad_bn"),
            (dy, w, None, before.y, *before.state, None, *RELU_ARGS, *geometry),
            eager, (dy, w, before.z.relu(), geometry[:4], *before.kept), wanted, conv_need(shape),
        )  # fmt: skip
