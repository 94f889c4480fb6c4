"""bn_stats: count, mean and M2 of a batch norm's input, one read of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .cases import Case, Maker, primitive
from .layers import Layers

OPS = ("bn_stats",)


def eager(y: Tensor) -> tuple[Tensor, ...]:
    return torch.var_mean(y, (0, 2, 3), correction=0)


def wanted(stats: Tensor) -> tuple[Tensor, ...]:
    return stats[2] / stats[0], stats[1]


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.norms:
        y = make.activation(layer.at(make.batch).size)
        name = layer.at(make.batch).id
        yield Case("bn_stats", name, layer.count, primitive("bn_stats"), (y,), eager, (y,), wanted)
