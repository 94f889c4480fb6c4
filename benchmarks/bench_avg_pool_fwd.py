"""avg_pool_fwd over the whole image, as in front of the classifier."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F

from .cases import NO_PROLOGUE, Case, Maker, primitive
from .layers import Activation, Layers

OPS = ("avg_pool_fwd",)


def window(layer: Activation) -> tuple[list[int], list[int], list[int], bool, bool]:
    """Kernel, stride, padding, ceil_mode, count_include_pad."""
    return [layer.h, layer.w], [1, 1], [0, 0], False, True


def eager(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1)


def cases(layers: Layers, make: Maker) -> Iterator[Case]:
    for layer in layers.avg_pool:
        shape = layer.at(make.batch)
        x = make.activation(shape.size)
        yield Case(
            "avg_pool_fwd", shape.id, shape.count, primitive("avg_pool_fwd"),
            (x, *NO_PROLOGUE, *window(shape)), eager, (x,),
        )  # fmt: skip
