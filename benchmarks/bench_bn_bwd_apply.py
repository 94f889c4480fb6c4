"""bn_bwd_apply: dy = A g + B (y - mean) + C, relu's gradient recomputed inside blocks.

Stock PyTorch has no op for this part alone: plain pointwise ops stand here, the whole of batch
norm's backward in bench_bn_act_bwd.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .bench_bn_act_bwd_reduce import relu_gradient
from .cases import RELU_ARGS, Case, Maker, Norm, primitive
from .layers import Activation, Layers

OPS = ("bn_bwd_apply",)


def eager(g: Tensor, y: Tensor, z: Tensor | None, mean: Tensor, *abc: Tensor) -> Tensor:
    if z is not None:
        g = relu_gradient(g, z)
    a, b, c = abc
    return (a * g + b * (y - mean) + c).to(g.dtype)


def _case(layer: Activation, make: Maker, act: bool) -> Case:
    norm, g = Norm(make.activation(layer.size), make), make.activation(layer.size, 3)
    abc = torch.stack(make.vectors(layer.c, 3))
    after: tuple[Any, ...] = (*norm.state[2:], *RELU_ARGS) if act else (None, None, 0, 0.0)
    columns = [v[:, None, None] for v in (norm.mean, *abc)]
    return Case(
        "bn_bwd_apply", layer.id + ("-relu" if act else ""), layer.count,
        primitive("bn_bwd_apply"), (g, norm.y, norm.mean, abc, *after),
        eager, (g, norm.y, norm.z.relu() if act else None, *columns),
    )  # fmt: skip


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.plain:
        yield _case(layer.at(make.batch), make, act=True)
    for layer in (*layers.residual, *layers.dual):
        yield _case(layer.at(make.batch), make, act=False)
