"""fuse() on torchvision's networks: outputs, gradients, running statistics, and what is fused."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from model_checks import assert_same, twins
from resnet_kernels import explain, fuse
from torch import nn
from torchvision.models import segmentation
from user_modules import image

SMALL_RESNETS = ("resnet18", "resnet50", "resnext50_32x4d")
LARGE_RESNETS = (
    "resnet34", "resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d",
    "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
# What explain() counts for one model, and the layers left to torch.
OTHERS: dict[str, tuple[dict[str, int], int]] = {
    "mobilenet_v2": ({"conv_bn": 42, "conv_bn_add": 10}, 35),
    "mobilenet_v3_small": ({"conv_bn_act": 5, "conv_bn_add": 6, "conv_bn": 23, "conv_act": 9}, 37),
    "efficientnet_b0": ({"conv_bn_act": 33, "conv_bn": 16, "conv_act": 16}, 32),
    "densenet121": ({"stem": 1, "bn_act": 62, "conv_bn_act": 58}, 61),
    "regnet_y_400mf": (
        {"conv_bn_act": 33, "conv_bn_add_act": 16, "conv_bn": 4, "conv_act": 16},
        32,
    ),
    "vgg11_bn": ({"stem": 5, "conv_bn_act": 3}, 2),
    "shufflenet_v2_x0_5": ({"stem": 1, "conv_bn": 19, "conv_bn_act": 36}, 0),
    "mnasnet0_5": ({"conv_bn_act": 35, "conv_bn": 7, "conv_bn_add": 10}, 0),
    "squeezenet1_1": ({"conv_act": 26}, 0),
    "googlenet": ({"conv_bn_act": 57}, 0),
    "inception_v3": ({"conv_bn_act": 94}, 0),
}
FAST = ("mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121", "googlenet", "regnet_y_400mf")


def make(name: str) -> nn.Module:
    options: dict[str, Any] = {"num_classes": 8}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None, **options)
    # Random masks follow the memory layout, in which stock and fused differ.
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    return model


def ops(model: nn.Module) -> Counter[str]:
    return Counter(row.path.removesuffix(" (cpu)") for row in explain(model).fused)


def check(name: str, size: int = 64) -> None:
    stock, fused = twins(make(name))
    assert_same(stock, fused, image(size, 3)[:2])


@pytest.mark.parametrize("name", [*SMALL_RESNETS, *FAST])
def test_same_as_stock(name: str) -> None:
    check(name)


@pytest.mark.full
@pytest.mark.parametrize("name", [*LARGE_RESNETS, *(n for n in OTHERS if n not in FAST)])
def test_same_as_stock_long(name: str) -> None:
    check(name, 75 if name == "inception_v3" else 64)


@pytest.mark.parametrize("name", [*SMALL_RESNETS, *LARGE_RESNETS])
def test_resnets_are_fused_whole(name: str) -> None:
    model = fuse(make(name))
    blocks = sum(len(getattr(model, f"layer{i}")) for i in range(1, 5))
    block = "basic_block" if name in ("resnet18", "resnet34") else "bottleneck"
    assert ops(model) == {"stem": 1, block: blocks}
    assert not explain(model).unfused


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_fused_where_possible(name: str) -> None:
    expected, left = OTHERS[name]
    model = fuse(make(name))
    assert ops(model) == expected
    assert len(explain(model).unfused) == left


@pytest.mark.parametrize("build", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_dilated_segmentation_backbone(build: str) -> None:
    torch.manual_seed(0)
    backbone = getattr(segmentation, build)(weights=None, weights_backbone=None).backbone
    assert ops(fuse(copy.deepcopy(backbone)))["bottleneck"] == 16
    stage = backbone.layer4
    assert [block.conv2.dilation[0] for block in stage] == [2, 4, 4]
    stock, fused = twins(stage)
    assert_same(stock, fused, image(6, 1024))


def test_fp32_error_within_twice_that_of_stock() -> None:
    """The error rule on a whole network in its usual precision; gradients by relative L2 norm."""
    torch.manual_seed(0)
    stock = make("resnet18")
    oracle, fused = copy.deepcopy(stock).double(), fuse(copy.deepcopy(stock))
    x = image(64, 3)
    outputs, gradients = [], []
    for model in (oracle, stock, fused):
        out = model(x.to(next(model.parameters()).dtype))
        out.square().sum().backward()
        outputs.append(out.detach().double())
        flat = [p.grad.double().flatten() for p in model.parameters()]
        gradients.append(torch.cat(flat))
    for exact, theirs, ours in (outputs, gradients):
        scale = exact.norm()
        limit = 2 * (theirs - exact).norm() / scale + 4 * torch.finfo(torch.float32).eps
        assert (ours - exact).norm() / scale <= limit
