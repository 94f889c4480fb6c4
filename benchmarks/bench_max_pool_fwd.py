"""max_pool_fwd with the stem's batch norm and relu in front; one-byte indices, PyTorch's have 8."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F

from .cases import RELU_ARGS, Affine, Case, Maker, primitive
from .layers import Layers

OPS = ("max_pool_fwd",)
WINDOW = ([3, 3], [2, 2], [1, 1], [1, 1])


def eager(x: Tensor, *affine: Tensor) -> Tensor:
    z = Affine.apply(x, *affine).relu_()
    return F.max_pool2d_with_indices(z, *WINDOW, False)[0]


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.max_pool:
        shape = layer.at(make.batch)
        x, (scale, bias) = make.activation(shape.size), make.vectors(shape.c, 2)
        case = Case(
            "max_pool_fwd", shape.id, shape.count, primitive("max_pool_fwd"),
            (x, scale, bias, *RELU_ARGS, *WINDOW, False), eager, (x, *Affine(scale, bias).tensors),
        )  # fmt: skip
        yield case.mapped(lambda z, indices: (z,))
