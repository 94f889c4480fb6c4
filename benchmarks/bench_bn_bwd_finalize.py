"""bn_bwd_finalize: sums to the coefficients of dy = A g + B (y - mean) + C; [K] vectors alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .cases import Case, Maker, primitive
from .layers import Layers

OPS = ("bn_bwd_finalize",)


def eager(sums: Tensor, gamma: Tensor, rstd: Tensor, count: Tensor) -> tuple[Tensor, ...]:
    a = gamma * rstd
    share = -a / count
    return a, share * rstd * sums[1], share * sums[0]


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.channels:
        first, second, gamma, rstd = make.vectors(layer.c, 4)
        args = (torch.stack([first, second]), gamma, rstd, torch.full_like(gamma[:1], 1000.0))
        case = Case(
            "bn_bwd_finalize", f"K{layer.c}", layer.count, primitive("bn_bwd_finalize"), args,
            eager, args,
        )  # fmt: skip
        yield case.mapped(lambda abc: tuple(abc))
