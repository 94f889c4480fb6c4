"""avg_pool_bwd of the pooling in front of the classifier: one gradient spread over an image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .bench_avg_pool_fwd import window
from .cases import Case, Maker, primitive
from .layers import Layers

OPS = ("avg_pool_bwd",)


def eager(
    dz: Tensor, x: Tensor, window: tuple[list[int], list[int], list[int], bool, bool]
) -> Tensor:
    return torch.ops.aten.avg_pool2d_backward(dz, x, *window, None)


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.avg_pool:
        shape = layer.at(make.batch)
        x, dz = make.activation(shape.size), make.activation((shape.n, shape.c, 1, 1), 3)
        yield Case(
            "avg_pool_bwd", shape.id, shape.count, primitive("avg_pool_bwd"),
            (dz, list(x.shape), *window(shape)), eager, (dz, x, window(shape)),
        )  # fmt: skip
