"""fuse() on FrozenBatchNorm2d, torchvision's detection and segmentation models, timm's families."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import timm
import torch
from model_checks import (
    assert_near,
    assert_same,
    assert_same_gradients,
    assert_same_state,
    leaves,
    primitives,
    twins,
)
from timm.layers import BatchNormAct2d
from torch import nn
from torchvision.models import resnet18, segmentation
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d
from user_modules import C, conv, image

from resnet_kernels import explain, fuse, unfuse

# The ops of one model of each family, by explain().
FAMILIES: dict[str, dict[str, int]] = {
    "resnet18d": {"stem": 1, "conv_bn_act": 2, "basic_block": 8, "conv_bn": 3},
    "resnet14t": {"stem": 1, "conv_bn_act": 2, "bottleneck": 4, "conv_bn": 3},
    "resnetblur18": {
        "stem": 1, "conv_bn_act": 3, "basic_block": 5, "conv_bn_add_act": 3, "conv_bn": 3,
    },
    "seresnet18": {"stem": 1, "conv_bn_act": 8, "conv_bn": 11, "conv_act": 8},
    "skresnet18": {"stem": 1, "conv_bn_act": 24, "conv_bn": 11},
    "resnext26ts": {"conv_bn_act": 19, "conv_bn": 12},
    "res2net50_48w_2s": {"stem": 1, "conv_bn_act": 32, "conv_bn_add_act": 16, "conv_bn": 4},
    "ecaresnet26t": {"stem": 1, "conv_bn_act": 18, "conv_bn": 12},
    "resnetv2_18": {"preact_block": 5, "bn_act": 4, "conv_bn_act": 3},
}  # fmt: skip


def shake_frozen(model: nn.Module) -> nn.Module:
    """The model with frozen vectors that a wrong order or a swap of two would show in."""
    generator = torch.Generator().manual_seed(11)
    ranges = {"weight": (0.3, 0.8), "bias": (-1, 1), "running_mean": (-1, 1), "running_var": (1, 3)}
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for name, (low, high) in ranges.items():
                module.get_buffer(name).uniform_(low, high, generator=generator)
    return model


def frozen_chain(act: nn.Module | None) -> nn.Sequential:
    layers = [conv(), FrozenBatchNorm2d(C, eps=0.1), *([act] if act else []), conv()]
    return nn.Sequential(*layers, FrozenBatchNorm2d(C))


@pytest.mark.parametrize(
    "act", [None, nn.ReLU(inplace=True), nn.SiLU(), nn.LeakyReLU(0.2)], ids=str
)
def test_frozen_chain(act: nn.Module | None) -> None:
    torch.manual_seed(0)
    stock, fused = twins(shake_frozen(frozen_chain(act)))
    assert_same(stock, fused, image(), steps=2)
    paths = [row.path for row in explain(fused).rows]
    assert paths == ["conv_bn (cpu)" if act is None else "conv_bn_act (cpu)", "conv_bn (cpu)"]


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_frozen_block(block: Any) -> None:
    """With a projection; the vectors are buffers, so no gradient ends in them."""
    torch.manual_seed(0)
    planes = 2 * C
    width = planes * block.expansion
    downsample = nn.Sequential(nn.Conv2d(C, width, 1, 2, bias=False), FrozenBatchNorm2d(width))
    made = block(C, planes, 2, downsample, norm_layer=FrozenBatchNorm2d)
    stock, fused = twins(shake_frozen(made))
    assert_same(stock, fused, image(), steps=2)
    assert len(explain(fused).rows) == 1 and not explain(fused).unfused


def test_frozen_network_with_frozen_layers() -> None:
    """As a detector fine-tunes it: the stem and the first stage have no gradients."""
    torch.manual_seed(0)
    model = shake_frozen(resnet18(norm_layer=FrozenBatchNorm2d, num_classes=4))
    for part in (model.conv1, model.layer1):
        part.requires_grad_(False)
    stock, fused = twins(model)
    assert_same(stock, fused, image(48, 3), steps=2)
    with primitives() as ran:
        fused(image(48, 3))
    assert "conv_fwd" in ran


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_under_autocast_keeps_the_dtype(dtype: torch.dtype) -> None:
    """The frozen affine is arithmetic with fp32 vectors: its output is fp32, autocast or not."""
    torch.manual_seed(0)
    stock = shake_frozen(frozen_chain(nn.ReLU()))
    fused = fuse(copy.deepcopy(stock))
    x = image().float()
    with torch.autocast("cpu", dtype):
        expected, actual = stock(x), fused(x)
        first, second = explain(fused).rows
    assert expected.dtype == actual.dtype == torch.float32
    limit = 4 * torch.finfo(dtype).eps * expected.norm()
    assert (actual - expected).norm() <= limit
    name = str(dtype).removeprefix("torch.")
    reason = f"runs unfused: FrozenBatchNorm2d makes float32 of the convolution's {name}"
    assert first.reason == second.reason == reason
    assert all("unfused" not in row.reason for row in explain(fused).rows)


def assert_same_training(stock: nn.Module, fused: nn.Module, *args: Any) -> None:
    """Same losses and gradients of one training step, then same eval output and state."""
    found = []
    for model in (stock, fused):
        model.train().zero_grad()
        torch.manual_seed(3)
        out = model(*copy.deepcopy(args))
        sum(value.square().mean() for value in leaves(out)).backward()
        model.eval()
        with torch.no_grad():
            found.append(leaves(out) + leaves(model(args[0])))
    expected, actual = found
    assert len(expected) == len(actual)
    for index, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_near(a.detach(), b.detach(), f"output {index}")
    assert_same_gradients(stock, fused)
    assert_same_state(stock, fused)


def test_detector() -> None:
    """Faster R-CNN with a frozen ResNet-18: losses, gradients, boxes, scores."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d
    )
    anchors = AnchorGenerator(((8,), (16,), (32,), (48,), (64,)), ((1.0,),) * 5)
    few = {f"rpn_{a}_nms_top_n_{b}": 16 for a in ("pre", "post") for b in ("train", "test")}
    model = FasterRCNN(backbone, 3, 64, 64, rpn_anchor_generator=anchors, **few)
    stock, fused = twins(shake_frozen(model))
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]]).double()
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])}] * 2
    assert_same_training(stock, fused, list(image(64, 3)[:2]), targets)
    assert all(len(found["boxes"]) for found in fused(list(image(64, 3)[:2])))
    ops = Counter(row.path for row in explain(fused.backbone.body).fused)
    assert ops["basic_block (cpu)"] == 8
    assert ops["stem (cpu)"] == 1


def test_segmenter() -> None:
    """FCN with dilated stages and both heads."""
    torch.manual_seed(0)
    model = segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=4, aux_loss=True
    )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    stock, fused = twins(model)
    assert_same_training(stock, fused, image(32, 3)[:2])
    ops = Counter(row.path for row in explain(fused).fused)
    assert ops == {"stem (cpu)": 1, "bottleneck (cpu)": 16, "conv_bn_act (cpu)": 2}


@pytest.mark.parametrize("name", FAMILIES)
def test_timm_family(name: str) -> None:
    torch.manual_seed(0)
    stock, fused = twins(timm.create_model(name, pretrained=False, num_classes=4))
    ops = Counter(row.path.removesuffix(" (cpu)") for row in explain(fused).fused)
    assert ops == FAMILIES[name]
    assert_same(stock, fused, image(48, 3))


class Normed(nn.Module):
    """A convolution and timm's norm with the activation in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv, self.norm = conv(), BatchNormAct2d(C, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


@pytest.mark.parametrize(
    ("options", "op"),
    [
        ({}, "conv_bn_act"),
        ({"act_layer": nn.SiLU}, "conv_bn_act"),
        ({"apply_act": False}, "conv_bn"),
        ({"act_layer": nn.Hardswish}, None),
        ({"drop_layer": nn.Dropout2d}, None),
    ],
    ids=["relu", "silu", "no_act", "hardswish", "dropout"],
)
def test_norm_act(options: Any, op: str | None) -> None:
    torch.manual_seed(0)
    stock, fused = twins(Normed(**options))
    for model in (stock, fused):
        if isinstance(model.norm.drop, nn.Dropout2d):
            model.norm.drop.p = 0.0
    assert_same(stock, fused, image(), steps=2)
    table = explain(fused)
    assert [row.path for row in table.fused] == ([f"{op} (cpu)"] if op else [])
    reasons = {row.layers: row.reason for row in table.unfused}
    expected = None if op else "BatchNormAct2d has no fused form"
    assert reasons.get(("norm",)) == expected


def test_norm_act_follows_changes_of_its_parts() -> None:
    """Another activation, a hook on it, and inputs that only the original modules take."""
    torch.manual_seed(0)
    stock, fused = twins(Normed(act_layer=nn.SiLU))
    assert_same(stock, fused, image())
    calls: list[int] = []
    for model in (stock, fused):
        model.norm.act = nn.Tanh()
    assert_same(stock, fused, image())
    for model in (stock, fused):
        model.norm.act = nn.ReLU()
        model.norm.act.register_forward_hook(lambda *_: calls.append(1))
    assert_same(stock, fused, image())
    assert len(calls) == 4
    stock, fused = twins(Normed(act_layer=nn.SiLU))
    # Below functorch no fused op runs: the norm and its activation do, each once.
    for model in (stock.eval(), fused.eval()):
        model.requires_grad_(False)
    x = image()
    expected = torch.func.jvp(stock, (x,), (x,))
    actual = torch.func.jvp(fused, (x,), (x,))
    for a, b in zip(actual, expected, strict=True):
        assert_near(a, b, "jvp")
    assert type(unfuse(fused)) is Normed
