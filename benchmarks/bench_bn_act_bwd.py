"""bn_act_bwd: the whole backward of batch norm and relu, our three ops against PyTorch's two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .bench_bn_act_bwd_reduce import relu_gradient
from .cases import RELU_ARGS, Case, Maker, Need, Norm, stock_backward
from .layers import Layers

OPS = ("bn_act_bwd",)


def run(
    namespace: Any, dz: Tensor, y: Tensor, gamma: Tensor, count: Tensor, *state: Tensor
) -> tuple[Tensor, ...]:
    mean, rstd, scale, bias = state
    sums = namespace.bn_act_bwd_reduce(dz, y, *state, *RELU_ARGS)
    abc = namespace.bn_bwd_finalize(sums, gamma, rstd, count)
    dy = namespace.bn_bwd_apply(dz, y, mean, abc, scale, bias, *RELU_ARGS)
    return dy, sums[1], sums[0]


def eager(dz: Tensor, z: Tensor, *kept: Any) -> tuple[Tensor, ...]:
    return stock_backward(relu_gradient(dz, z), kept, True)


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.plain:
        shape = layer.at(make.batch)
        norm, dz = Norm(make.activation(shape.size), make), make.activation(shape.size, 3)
        args = (dz, norm.y, norm.gamma, norm.count, *norm.state)
        # Sums are needed before the first dy: dz and y are read a second time.
        need = Need(unread=-2 * dz.numel() * dz.element_size())
        stock = (dz, norm.z.relu(), *norm.kept)
        yield Case("bn_act_bwd", shape.id, shape.count, run, args, eager, stock, need=need)
