"""Pre-activation ResNet (He et al. 2016) and Wide ResNet for small images (Zagoruyko et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as blocks
from .registry import register
from .resnet import _DOC, _STEMS
from .weights import build


class PreActResNet(nn.Module):
    """A pre-activation network of any number of stages; stage i has width * widen * 2^i planes.

    Args:
        block: nn.PreActBlock or nn.PreActBottleneck of this package.
        layers: blocks in each stage.
        width: channels of the stem. widen: factor of the stages.
        stem: "imagenet" (7x7/2 convolution, 3x3/2 max pooling) or "cifar" (3x3).
        dropout: between the convolutions of a PreActBlock.
    """

    def __init__(
        self,
        block: type[blocks.PreActBlock] | type[blocks.PreActBottleneck],
        layers: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        widen: int = 1,
        stem: str = "imagenet",
        dropout: float = 0.0,
        norm: blocks.Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if stem not in _STEMS:
            raise ValueError(f"stem: expected one of {', '.join(_STEMS)}, got {stem!r}")
        options: dict[str, Any] = {"norm": norm, "fused": False}
        if dropout:
            options["dropout"] = dropout
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = blocks.conv3x3(in_channels, width)
            self.maxpool = nn.Identity()
        channels = width
        for i, count in enumerate(layers):
            planes, stage = width * widen * 2**i, []
            for j in range(count):
                stage.append(block(channels, planes, 2 if i and j == 0 else 1, **options))
                channels = planes * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.stages = len(layers)
        self.bn = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        blocks.init_convs(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        x = self.avgpool(self.relu(self.bn(x)))
        return self.fc(torch.flatten(x, 1))


_LAYERS: dict[int, tuple[Any, tuple[int, ...]]] = {
    18: (blocks.PreActBlock, (2, 2, 2, 2)),
    34: (blocks.PreActBlock, (3, 4, 6, 3)),
    50: (blocks.PreActBottleneck, (3, 4, 6, 3)),
    101: (blocks.PreActBottleneck, (3, 4, 23, 3)),
    152: (blocks.PreActBottleneck, (3, 8, 36, 3)),
}


def _define(depth: int, stem: str) -> Any:
    block, layers = _LAYERS[depth]
    classes = 1000 if stem == "imagenet" else 10

    def constructor(
        weights: Any = None, *, num_classes: int | None = None, fused: bool = True, **kwargs: Any
    ) -> nn.Module:
        options = {"stem": stem, **kwargs}
        return build(
            lambda n: PreActResNet(block, layers, num_classes=n, **options),
            weights,
            num_classes,
            classes,
            fused,
        )

    prefix = "cifar_" if stem == "cifar" else ""
    constructor.__name__ = constructor.__qualname__ = f"{prefix}preact_resnet{depth}"
    title = f"Pre-activation ResNet-{depth}" + (" for small images" if prefix else "")
    constructor.__doc__ = _DOC.format(title=title, classes=classes, cls="PreActResNet")
    return register(constructor)


preact_resnet18 = _define(18, "imagenet")
preact_resnet34 = _define(34, "imagenet")
preact_resnet50 = _define(50, "imagenet")
preact_resnet101 = _define(101, "imagenet")
preact_resnet152 = _define(152, "imagenet")
cifar_preact_resnet18 = _define(18, "cifar")
cifar_preact_resnet34 = _define(34, "cifar")
cifar_preact_resnet50 = _define(50, "cifar")
cifar_preact_resnet101 = _define(101, "cifar")
cifar_preact_resnet152 = _define(152, "cifar")


@register
def wrn(
    weights: Any = None,
    *,
    depth: int = 16,
    widen: int = 4,
    num_classes: int | None = None,
    fused: bool = True,
    **kwargs: Any,
) -> nn.Module:
    """Wide ResNet WRN-depth-widen for small images: stem of 16 channels, three stages.

    Args:
        depth: 6n + 4. widen: factor of the widths 16, 32, 64.
        weights, num_classes (10), fused, **kwargs: as the other models; dropout, width, in_channels.
    Raises: ValueError for another depth, or weights that do not fit.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth: expected 6n + 4, at least 10, got {depth}")
    layers = ((depth - 4) // 6,) * 3
    options = {"width": 16, "stem": "cifar", **kwargs}
    return build(
        lambda n: PreActResNet(blocks.PreActBlock, layers, num_classes=n, widen=widen, **options),
        weights,
        num_classes,
        10,
        fused,
    )


@register
def wrn28_10(weights: Any = None, **kwargs: Any) -> nn.Module:
    """WRN-28-10: wrn with depth 28 and widen 10; keywords as there."""
    return wrn(weights, depth=28, widen=10, **kwargs)
