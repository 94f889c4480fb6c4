"""bn_finalize: statistics to mean, rstd, scale, bias, and the running statistics' update.

[K] vectors alone: launches, not bytes, are what it costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .cases import EPS, MOMENTUM, Case, Maker
from .layers import Layers

OPS = ("bn_finalize",)


def run(namespace: Any, *args: Any) -> tuple[Tensor, ...]:
    """The results and the running statistics that it changed."""
    return (*namespace.bn_finalize(*args), *args[4:6])


def eager(
    count: Tensor, mean: Tensor, m2: Tensor, gamma: Tensor, beta: Tensor, rm: Tensor, rv: Tensor
) -> tuple[Tensor, ...]:
    variance = m2 / count
    rstd = torch.rsqrt(variance + EPS)
    scale = gamma * rstd
    rm.lerp_(mean, MOMENTUM)
    rv.lerp_(m2 / (count - 1), MOMENTUM)
    return rstd, scale, beta - mean * scale


def wanted(mean: Tensor, rstd: Tensor, scale: Tensor, bias: Tensor, *rest: Tensor) -> Any:
    return rstd, scale, bias


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.channels:
        mean, m2, gamma, beta, rm, rv = make.vectors(layer.c, 6)
        count, m2 = torch.full_like(mean, 1000.0), 1000 * m2
        args = (torch.stack([count, mean, m2])[None], gamma, beta, None, rm, rv, None)
        stock = (count, mean, m2, gamma, beta, rm.clone(), rv.clone())
        name = f"K{layer.c}"
        case = Case("bn_finalize", name, layer.count, run, (*args, MOMENTUM, EPS), eager, stock)
        yield case.mapped(wanted)
