"""bn_act_bwd_reduce, _add and _dual: relu's gradient and the two sums of batch norm's backward.

Stock PyTorch has no op for the sums alone: relu's gradient, and its batch norm's backward asked for
dgamma and dbeta without dx (cuDNN's computes dx all the same).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from resnet_kernels import reference

from .cases import RELU_ARGS, Case, Maker, Norm, primitive, stock_backward
from .layers import Activation, Layers

OPS = ("bn_act_bwd_reduce", "bn_act_bwd_reduce_add", "bn_act_bwd_reduce_dual")
_KEPT = 6  # values in Norm.kept


def relu_gradient(dz: Tensor, z: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(dz, z, 0)


def eager(dz: Tensor, z: Tensor, *kept: Any) -> tuple[Tensor, ...]:
    return stock_backward(relu_gradient(dz, z), kept, False)


def eager_add(dz: Tensor, z: Tensor, *kept: Any) -> tuple[Tensor, ...]:
    g = relu_gradient(dz, z)
    return g, *stock_backward(g, kept, False)


def eager_dual(dz: Tensor, z: Tensor, *kept: Any) -> tuple[Tensor, ...]:
    g = relu_gradient(dz, z)
    first, second = kept[:_KEPT], kept[_KEPT:]
    return g, *stock_backward(g, first, False), *stock_backward(g, second, False)


def swapped(*sums: Tensor) -> tuple[Tensor, ...]:
    """dgamma, dbeta of each pair of sums."""
    return tuple(one[i] for one in sums for i in (1, 0))


def _plain(layer: Activation, make: Maker) -> Case:
    norm, dz = Norm(make.activation(layer.size), make), make.activation(layer.size, 3)
    case = Case(
        "bn_act_bwd_reduce", layer.id, layer.count, primitive("bn_act_bwd_reduce"),
        (dz, norm.y, *norm.state, *RELU_ARGS), eager, (dz, norm.z.relu(), *norm.kept),
    )  # fmt: skip
    return case.mapped(swapped)


def _block_end(layer: Activation, make: Maker, dual: bool) -> Case:
    """The last batch norm of a block, whose relu's signs are kept as bits."""
    norm, dz = Norm(make.activation(layer.size), make), make.activation(layer.size, 3)
    second = Norm(make.activation(layer.size, 4), make)
    z = (norm.z + second.z).relu_()
    mask = reference.pack_mask(z > 0)
    op = "bn_act_bwd_reduce_dual" if dual else "bn_act_bwd_reduce_add"
    extra = (second.y, *second.state) if dual else (None,)
    kept = norm.kept + (second.kept if dual else ())
    case = Case(
        op, layer.id, layer.count, primitive(op),
        (dz, norm.y, *norm.state, *extra, mask, *RELU_ARGS),
        eager_dual if dual else eager_add, (dz, z, *kept),
    )  # fmt: skip
    return case.mapped(lambda g, *sums: (g, *swapped(*sums)))


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.plain:
        yield _plain(layer.at(make.batch), make)
    for dual, group in ((False, layers.residual), (True, layers.dual)):
        for layer in group:
            yield _block_end(layer.at(make.batch), make, dual)
