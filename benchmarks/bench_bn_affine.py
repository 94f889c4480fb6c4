"""bn_affine: scale and bias of a batch norm from its running statistics; [K] vectors alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .cases import EPS, Case, Maker, primitive
from .layers import Layers

OPS = ("bn_affine",)


def eager(mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    scale = gamma * torch.rsqrt(variance + EPS)
    return scale, beta - mean * scale


def wanted(mean: Tensor, rstd: Tensor, scale: Tensor, bias: Tensor) -> Any:
    return scale, bias


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.channels:
        vectors = tuple(make.vectors(layer.c, 4))
        args = (*vectors, None, EPS)
        case = Case(
            "bn_affine", f"K{layer.c}", layer.count, primitive("bn_affine"), args, eager, vectors
        )
        yield case.mapped(wanted)
