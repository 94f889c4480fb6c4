"""conv_fwd_stats: batch norm and relu of the layer in front, convolution, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .cases import Affine, Case, Maker, conv_need, primitive
from .layers import Layers, has_prologue

OPS = ("conv_fwd_stats",)


def eager(x: Tensor, w: Tensor, conv: Any, *affine: Tensor) -> tuple[Tensor, ...]:
    z = Affine.apply(x, *affine).relu_() if affine else x
    y = F.conv2d(z, w, None, *conv)
    return y, *torch.var_mean(y, (0, 2, 3), correction=0)


def wanted(y: Tensor, stats: Tensor) -> tuple[Tensor, ...]:
    return y, stats[2] / stats[0], stats[1]


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.convs:
        shape = layer.at(make.batch)
        x, w, before = make.activation(shape.x_size), make.weight(shape), make.before(shape)
        affine = Affine(*before[:2]).tensors if has_prologue(shape) else ()
        geometry = make.geometry(shape)
        yield Case(
            "conv_fwd_stats", shape.id, shape.count, primitive("conv_fwd_stats"),
            (x, w, *before, *geometry), eager, (x, w, geometry[:4], *affine), wanted,
            need=conv_need(shape, x),
        )  # fmt: skip
