"""conv_apply_dgrad and _bn: batch norm's dy made on the way to the input's gradient of a 1x1 layer.

Stock PyTorch: what bench_bn_bwd_apply.py and the benches of conv_dgrad have, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from python_tests.shapes import ConvShape

from . import bench_bn_bwd_apply, bench_conv_dgrad, bench_conv_dgrad_bn
from .cases import RELU_ARGS, Case, Maker, Norm, conv_need, primitive
from .layers import Layers, has_prologue

OPS = ("conv_apply_dgrad", "conv_apply_dgrad_bn")
_DY = 7  # arguments of bench_bn_bwd_apply.eager


def eager(*args: Any) -> tuple[Tensor, ...]:
    dy = bench_bn_bwd_apply.eager(*args[:_DY])
    return bench_conv_dgrad.eager(dy, *args[_DY:]), dy


def eager_bn(*args: Any) -> tuple[Tensor, ...]:
    dy = bench_bn_bwd_apply.eager(*args[:_DY])
    return *bench_conv_dgrad_bn.eager(dy, *args[_DY:]), dy


def wanted_bn(g: Tensor, sums: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    return g, sums[1], sums[0], dy


def _case(shape: ConvShape, make: Maker) -> Case:
    w, geometry = make.weight(shape), make.geometry(shape)
    norm, g = Norm(make.activation(shape.y_size), make), make.activation(shape.y_size, 3)
    abc = torch.stack(make.vectors(shape.k, 3))
    parts = (g, norm.y, norm.mean, abc, w)
    stock = (g, norm.y, None, *(v[:, None, None] for v in (norm.mean, *abc)))
    x = make.activation(shape.x_size, 4)
    if not has_prologue(shape):
        return Case(
            "conv_apply_dgrad", shape.id, shape.count, primitive("conv_apply_dgrad"),
            (*parts, x, list(x.shape), *geometry), eager, (*stock, x, w, x, geometry[:4]),
            need=conv_need(shape),
        )  # fmt: skip
    before = Norm(x, make)
    return Case(
        "conv_apply_dgrad_bn", shape.id, shape.count, primitive("conv_apply_dgrad_bn"),
        (*parts, None, before.y, *before.state, None, *RELU_ARGS, *geometry),
        eager_bn, (*stock, w, before.z.relu(), geometry[:4], *before.kept), wanted_bn,
        conv_need(shape),
    )  # fmt: skip


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.convs:
        if (layer.r, layer.s) == (1, 1):
            yield _case(layer.at(make.batch), make)
