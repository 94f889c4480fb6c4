"""bn_act_fwd and bn_act_fwd_mask: scale, bias, residual or second batch norm, relu in one pass."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .cases import RELU_ARGS, Affine, Case, Maker, primitive
from .layers import Activation, Layers

OPS = ("bn_act_fwd", "bn_act_fwd_mask")


def eager(y: Tensor, *affine: Tensor) -> Tensor:
    return Affine.apply(y, *affine).relu_()


def eager_residual(y: Tensor, residual: Tensor, *affine: Tensor) -> Tensor:
    return Affine.apply(y, *affine).add_(residual).relu_()


def eager_dual(y: Tensor, y2: Tensor, *affines: Tensor) -> Tensor:
    shortcut = Affine.apply(y2, *affines[4:])
    return Affine.apply(y, *affines[:4]).add_(shortcut).relu_()


def _plain(layer: Activation, make: Maker) -> Case:
    y, (scale, bias) = make.activation(layer.size), make.vectors(layer.c, 2)
    return Case(
        "bn_act_fwd", layer.id, layer.count, primitive("bn_act_fwd"),
        (y, scale, bias, None, None, None, *RELU_ARGS),
        eager, (y, *Affine(scale, bias).tensors),
    )  # fmt: skip


def _mask(layer: Activation, make: Maker, dual: bool) -> Case:
    y, residual = make.activation(layer.size), make.activation(layer.size, 3)
    scale, bias, *second = make.vectors(layer.c, 4)
    affines = Affine(scale, bias).tensors + (Affine(*second).tensors if dual else ())
    case = Case(
        "bn_act_fwd_mask", layer.id + ("-dual" if dual else ""), layer.count,
        primitive("bn_act_fwd_mask"),
        (y, scale, bias, residual, *(second if dual else (None, None)), *RELU_ARGS),
        eager_dual if dual else eager_residual, (y, residual, *affines),
    )  # fmt: skip
    return case.mapped(lambda z, mask: (z,))


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.plain:
        yield _plain(layer.at(make.batch), make)
    for dual, group in ((False, layers.residual), (True, layers.dual)):
        for layer in group:
            yield _mask(layer.at(make.batch), make, dual)
