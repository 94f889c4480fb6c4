"""The blocks of resnet_kernels.nn: fused by default, the same as their plain forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_checks import assert_same, twins
from resnet_kernels import explain, fuse
from resnet_kernels import nn as blocks
from torch import nn
from user_modules import C, image

BLOCKS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "conv_bn_act": (lambda **kw: blocks.ConvBNAct(C, 5, 3, 2, act="silu", **kw), "conv_bn_act"),
    "bn_act": (lambda **kw: blocks.BNAct(C, act="gelu", **kw), "bn_act"),
    "stem": (lambda **kw: blocks.Stem(C, 8, **kw), "stem"),
    "basic_block": (lambda **kw: blocks.BasicBlock(C, C, **kw), "basic_block"),
    "bottleneck": (lambda **kw: blocks.Bottleneck(4 * C, C, **kw), "bottleneck"),
    "preact": (lambda **kw: blocks.PreActBlock(C, 8, 2, **kw), "preact_block"),
    "preact_identity": (lambda **kw: blocks.PreActBlock(C, C, **kw), "preact_block"),
    "preact_bottleneck": (lambda **kw: blocks.PreActBottleneck(C, C, **kw), "preact_block"),
    "pad_shortcut": (
        lambda **kw: blocks.BasicBlock(C, 9, 2, blocks.PadShortcut(C, 9, 2), **kw),
        "basic_block",
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str) -> None:
    make, op = BLOCKS[name]
    torch.manual_seed(0)
    assert [row.path for row in explain(make()).rows] == [f"{op} (cpu)"]
    assert not explain(make(fused=False)).fused
    stock, fused = twins(make(fused=False))
    assert_same(stock, fused, image(9, 4 * C if name == "bottleneck" else C), steps=2)


@pytest.mark.parametrize("act", ["identity", "relu", "gelu", "silu", "leaky_relu", None])
@pytest.mark.parametrize("with_residual", [False, True])
def test_activations_and_residual(act: str | None, with_residual: bool) -> None:
    torch.manual_seed(0)
    stock, fused = twins(
        blocks.ConvBNAct(C, C, bias=True, act=act, negative_slope=0.3, fused=False)
    )
    args = (image(), image().flip(0)) if with_residual else (image(),)
    assert_same(stock, fused, *args)


def test_unknown_activation_raises() -> None:
    with pytest.raises(ValueError, match="act: expected one of identity, relu"):
        blocks.ConvBNAct(C, C, act="tanh")


def test_derived_class_is_left_to_the_caller() -> None:
    class Twice(blocks.ConvBNAct):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x))

    block = Twice(C, C)
    assert type(block) is Twice
    torch.manual_seed(0)
    stock, fused = twins(block)
    assert_same(stock, fused, image())
    assert explain(fuse(fused)).fused
