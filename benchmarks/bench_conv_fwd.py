"""conv_fwd in inference: convolution, folded batch norm, residual where the layer widens, relu."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from .cases import NO_PROLOGUE, RELU_ARGS, Affine, Case, Maker, conv_need, primitive
from .layers import Layers

OPS = ("conv_fwd",)


def eager(x: Tensor, w: Tensor, residual: Tensor | None, conv: Any, *affine: Tensor) -> Tensor:
    z = Affine.apply(F.conv2d(x, w, None, *conv), *affine)
    if residual is not None:
        z.add_(residual)
    return z.relu_()


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.convs:
        shape = layer.at(make.batch)
        x, w = make.activation(shape.x_size), make.weight(shape)
        scale, bias = make.vectors(shape.k, 2)
        residual = make.activation(shape.y_size, 3) if shape.k == 4 * shape.c else None
        geometry = make.geometry(shape)
        yield Case(
            "conv_fwd", shape.id, shape.count, primitive("conv_fwd"),
            (x, w, *NO_PROLOGUE, scale, bias, residual, *RELU_ARGS, *geometry),
            eager, (x, w, residual, geometry[:4], *Affine(scale, bias).tensors),
            need=conv_need(shape, x),
        )  # fmt: skip
