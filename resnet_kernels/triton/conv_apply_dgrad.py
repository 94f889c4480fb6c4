"""conv_apply_dgrad, conv_apply_dgrad_bn: the input gradient of dy = A * g + B * (y - mean) + C.

bn_bwd_apply's kernel and then conv_dgrad's. Tensors as in ops/schemas.py.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..ops.acts import IDENTITY
from .bn_bwd_apply import bn_bwd_apply
from .conv_dgrad import conv_dgrad, conv_dgrad_bn


def conv_apply_dgrad(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """dx and dy; rest: the arguments of conv_dgrad behind dy."""
    dy = bn_bwd_apply(g, y, mean, abc, None, None, IDENTITY, 0.0)
    return conv_dgrad(dy, *rest), dy


def conv_apply_dgrad_bn(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """g of the layer before, its sums, and dy; rest: the arguments of conv_dgrad_bn behind dy."""
    dy = bn_bwd_apply(g, y, mean, abc, None, None, IDENTITY, 0.0)
    return *conv_dgrad_bn(dy, *rest), dy
