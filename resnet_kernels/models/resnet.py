"""ResNet, Wide ResNet and ResNeXt; state_dict keys are torchvision's.

Sources: He et al. 2015 (section 4.2 for resnet20 to resnet110), with the stride in the 3x3 convolution
as torchvision; Zagoruyko and Komodakis 2016; Xie et al. 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as blocks
from .registry import register
from .weights import build

_STEMS = ("imagenet", "cifar")
_SHORTCUTS = ("projection", "pad")


class ResNet(nn.Module):
    """A residual network of any number of stages; stage i has width * 2^i planes.

    Args:
        block: nn.BasicBlock or nn.Bottleneck of this package.
        layers: blocks in each stage.
        stem: "imagenet" (7x7/2 convolution, 3x3/2 max pooling) or "cifar" (3x3, no pooling).
        shortcut: where the shape changes: "projection" (1x1 convolution, option B) or "pad" (option A).
        groups, width_per_group: of ResNeXt and Wide ResNet.
        norm: makes a batch norm from a number of channels.
        zero_init_residual: each block starts as the identity.
    """

    def __init__(
        self,
        block: type[blocks.BasicBlock] | type[blocks.Bottleneck],
        layers: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        groups: int = 1,
        width_per_group: int = 64,
        stem: str = "imagenet",
        shortcut: str = "projection",
        norm: blocks.Norm = nn.BatchNorm2d,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if stem not in _STEMS:
            raise ValueError(f"stem: expected one of {', '.join(_STEMS)}, got {stem!r}")
        if shortcut not in _SHORTCUTS:
            raise ValueError(f"shortcut: expected one of {', '.join(_SHORTCUTS)}, got {shortcut!r}")
        self._block = {"groups": groups, "base_width": width_per_group, "norm": norm}
        self._channels = width
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        else:
            self.conv1 = blocks.conv3x3(in_channels, width)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        for i, count in enumerate(layers):
            stage = self._stage(block, width * 2**i, count, 2 if i else 1, shortcut)
            self.add_module(f"layer{i + 1}", stage)
        self.stages = len(layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self._channels, num_classes)
        blocks.init_convs(self)
        if zero_init_residual:
            blocks.zero_init_last_bn(self)

    def _stage(
        self, block: Any, planes: int, count: int, stride: int, shortcut: str
    ) -> nn.Sequential:
        stage = []
        for i in range(count):
            step, channels = stride if i == 0 else 1, planes * block.expansion
            change = step != 1 or self._channels != channels
            downsample = self._shortcut(channels, step, shortcut) if change else None
            stage.append(
                block(self._channels, planes, step, downsample, **self._block, fused=False)
            )
            self._channels = channels
        return nn.Sequential(*stage)

    def _shortcut(self, channels: int, stride: int, shortcut: str) -> nn.Module:
        if shortcut == "pad":
            return blocks.PadShortcut(self._channels, channels, stride)
        norm: Any = self._block["norm"]
        conv = blocks.conv1x1(self._channels, channels, stride)
        return nn.Sequential(conv, norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _resnet(
    block: Any,
    layers: Sequence[int],
    weights: Any,
    num_classes: int | None,
    fused: bool,
    default_classes: int = 1000,
    **kwargs: Any,
) -> nn.Module:
    def make(classes: int) -> nn.Module:
        return ResNet(block, layers, num_classes=classes, **kwargs)

    return build(make, weights, num_classes, default_classes, fused)


# depth -> (block, layers), table 1 of He et al. 2015.
_LAYERS: dict[int, tuple[Any, tuple[int, ...]]] = {
    18: (blocks.BasicBlock, (2, 2, 2, 2)),
    34: (blocks.BasicBlock, (3, 4, 6, 3)),
    50: (blocks.Bottleneck, (3, 4, 6, 3)),
    101: (blocks.Bottleneck, (3, 4, 23, 3)),
    152: (blocks.Bottleneck, (3, 8, 36, 3)),
}

_DOC = """{title}.

    Args:
        weights: None, the path of a .pt, .pth or .safetensors file, or a torchvision weight enum.
        num_classes: None is that of the weights, else {classes}.
        fused: apply `fuse` to the model.
        **kwargs: in_channels, width, stem, zero_init_residual and others of {cls}.
    Raises: ValueError listing missing, unexpected and misshapen keys if the weights do not fit.
    """


def _define(name: str, title: str, block: Any, layers: Sequence[int], **fixed: Any) -> Any:
    classes = fixed.pop("default_classes", 1000)

    def constructor(
        weights: Any = None, *, num_classes: int | None = None, fused: bool = True, **kwargs: Any
    ) -> nn.Module:
        options = {**fixed, **kwargs}
        return _resnet(block, layers, weights, num_classes, fused, classes, **options)

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = _DOC.format(title=title, classes=classes, cls="ResNet")
    return register(constructor)


def _imagenet(depth: int, name: str, title: str, **fixed: Any) -> Any:
    return _define(name, title, *_LAYERS[depth], **fixed)


def _cifar(depth: int) -> Any:
    title = f"ResNet-{depth} with a stem for small images (3x3, no pooling)"
    fixed = {"stem": "cifar", "default_classes": 10}
    return _define(f"cifar_resnet{depth}", title, *_LAYERS[depth], **fixed)


def _small(depth: int) -> Any:
    title = f"ResNet-{depth} of He et al. 2015, section 4.2: widths 16, 32, 64, option A shortcuts"
    fixed = {"stem": "cifar", "shortcut": "pad", "width": 16, "default_classes": 10}
    return _define(f"resnet{depth}", title, blocks.BasicBlock, ((depth - 2) // 6,) * 3, **fixed)


resnet18 = _imagenet(18, "resnet18", "ResNet-18")
resnet34 = _imagenet(34, "resnet34", "ResNet-34")
resnet50 = _imagenet(50, "resnet50", "ResNet-50")
resnet101 = _imagenet(101, "resnet101", "ResNet-101")
resnet152 = _imagenet(152, "resnet152", "ResNet-152")
resnext50_32x4d = _imagenet(50, "resnext50_32x4d", "ResNeXt-50 32x4d", groups=32, width_per_group=4)
resnext101_32x8d = _imagenet(
    101, "resnext101_32x8d", "ResNeXt-101 32x8d", groups=32, width_per_group=8
)
resnext101_64x4d = _imagenet(
    101, "resnext101_64x4d", "ResNeXt-101 64x4d", groups=64, width_per_group=4
)
wide_resnet50_2 = _imagenet(50, "wide_resnet50_2", "Wide ResNet-50-2", width_per_group=128)
wide_resnet101_2 = _imagenet(101, "wide_resnet101_2", "Wide ResNet-101-2", width_per_group=128)

cifar_resnet18 = _cifar(18)
cifar_resnet34 = _cifar(34)
cifar_resnet50 = _cifar(50)
cifar_resnet101 = _cifar(101)
cifar_resnet152 = _cifar(152)

resnet8 = _small(8)
resnet20 = _small(20)
resnet32 = _small(32)
resnet44 = _small(44)
resnet56 = _small(56)
resnet110 = _small(110)
