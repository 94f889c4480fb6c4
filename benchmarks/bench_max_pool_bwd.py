"""max_pool_bwd: every input pixel gathers from the windows whose index names it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_kernels import reference

from .bench_max_pool_fwd import WINDOW
from .cases import Case, Maker, primitive
from .layers import Layers

OPS = ("max_pool_bwd",)


def eager(dz: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    return torch.ops.aten.max_pool2d_with_indices_backward(dz, x, *WINDOW, False, indices)


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.max_pool:
        shape = layer.at(make.batch)
        x = make.activation(shape.size)
        z, indices = F.max_pool2d_with_indices(x, *WINDOW, False)
        taps = reference.max_pool_fwd(x, None, None, 0, 0.0, *WINDOW, False)[1]
        dz = make.activation(z.shape, 3)
        yield Case(
            "max_pool_bwd", shape.id, shape.count, primitive("max_pool_bwd"),
            (dz, taps, list(x.shape), *WINDOW), eager, (dz, x, indices),
        )  # fmt: skip
