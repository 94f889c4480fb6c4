"""Building blocks of plain torch children that run as fused ops.

Each forward is written in plain torch. With fused=True (the default) the constructor applies `fuse`
to the block; a class derived from one of these is left to the caller's own `fuse`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .fusion import fuse
from .ops.pad_shortcut import pad_shortcut

_ACTS: dict[str, Callable[[float], nn.Module]] = {
    "identity": lambda slope: nn.Identity(),
    "relu": lambda slope: nn.ReLU(inplace=True),
    "gelu": lambda slope: nn.GELU(),
    "silu": lambda slope: nn.SiLU(inplace=True),
    "leaky_relu": lambda slope: nn.LeakyReLU(slope, inplace=True),
}
Norm = Callable[[int], nn.Module]


def make_act(name: str | None, negative_slope: float = 0.01) -> nn.Module:
    """The torch module of one of the ops' activations; None is identity. Raises ValueError."""
    if name is not None and name not in _ACTS:
        raise ValueError(f"act: expected one of {', '.join(_ACTS)} or None, got {name!r}")
    return _ACTS[name or "identity"](negative_slope)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def _finish(module: nn.Module, cls: type, fused: bool) -> None:
    if fused and type(module) is cls:
        fuse(module)


class ConvBNAct(nn.Module):
    """Convolution, batch norm and activation, with an optional residual in front of the latter.

    Equivalent to: act(bn(conv(x)) + residual)

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: as nn.Conv2d.
        padding: None keeps the image size at stride 1.
        act: "identity", "relu", "gelu", "silu", "leaky_relu" (with negative_slope) or None.
        norm: makes the batch norm from a number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        act: str | None = "relu",
        negative_slope: float = 0.01,
        norm: Norm = nn.BatchNorm2d,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if padding is None:
            padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self.bn = norm(out_channels)
        self.act = make_act(act, negative_slope)
        _finish(self, ConvBNAct, fused)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        t = self.bn(self.conv(x))
        return self.act(t if residual is None else t + residual)


class BNAct(nn.Module):
    """Batch norm and activation, with an optional residual: act(bn(y) + residual)."""

    def __init__(
        self,
        channels: int,
        *,
        act: str | None = "relu",
        negative_slope: float = 0.01,
        norm: Norm = nn.BatchNorm2d,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.bn = norm(channels)
        self.act = make_act(act, negative_slope)
        _finish(self, BNAct, fused)

    def forward(self, y: Tensor, residual: Tensor | None = None) -> Tensor:
        t = self.bn(y)
        return self.act(t if residual is None else t + residual)


class Stem(nn.Module):
    """A network's first layers: pool(act(bn(conv(x)))), by default ResNet's 7x7/2 and 3x3/2."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        kernel_size: int = 7,
        stride: int = 2,
        *,
        act: str | None = "relu",
        negative_slope: float = 0.01,
        norm: Norm = nn.BatchNorm2d,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
        )
        self.bn = norm(out_channels)
        self.act = make_act(act, negative_slope)
        self.pool = nn.MaxPool2d(3, 2, 1)
        _finish(self, Stem, fused)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.act(self.bn(self.conv(x))))


class PadShortcut(nn.Module):
    """Option A of He et al. 2015 (section 4.2): every stride-th pixel, new channels zero."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.front = (out_channels - in_channels) // 2
        self.back = out_channels - in_channels - self.front
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return pad_shortcut(x, self.stride, self.front, self.back)


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions (He et al. 2015, figure 5 left)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        norm: Norm = nn.BatchNorm2d,
        *,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError(
                f"groups, base_width: BasicBlock expects 1 and 64, got {groups} and {base_width}"
            )
        self.conv1 = conv3x3(in_channels, planes, stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = downsample
        _finish(self, BasicBlock, fused)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(h + shortcut)


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 block (He et al. 2015, figure 5 right); the 3x3 strides (v1.5)."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        norm: Norm = nn.BatchNorm2d,
        *,
        fused: bool = True,
    ) -> None:
        super().__init__()
        width = int(planes * (base_width / 64.0)) * groups
        if width < 1:
            raise ValueError(
                f"base_width: expected planes * base_width / 64 >= 1, got {planes} and {base_width}"
            )
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, stride, groups)
        self.bn2 = norm(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        _finish(self, Bottleneck, fused)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(h + shortcut)


class PreActBlock(nn.Module):
    """Pre-activation block of two 3x3 convolutions (He et al. 2016); dropout as in Wide ResNet."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        dropout: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.bn1 = norm(in_channels)
        self.conv1 = conv3x3(in_channels, planes, stride)
        self.bn2 = norm(planes)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.conv2 = conv3x3(planes, planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, planes, stride)
        _finish(self, PreActBlock, fused)

    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(z)
        h = self.relu(self.bn2(self.conv1(z)))
        if self.dropout is not None:
            h = self.dropout(h)
        return self.conv2(h) + shortcut


class PreActBottleneck(nn.Module):
    """Pre-activation 1x1, 3x3, 1x1 block (He et al. 2016)."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        norm: Norm = nn.BatchNorm2d,
        fused: bool = True,
    ) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.bn1 = norm(in_channels)
        self.conv1 = conv1x1(in_channels, planes)
        self.bn2 = norm(planes)
        self.conv2 = conv3x3(planes, planes, stride)
        self.bn3 = norm(planes)
        self.conv3 = conv1x1(planes, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, out_channels, stride)
        _finish(self, PreActBottleneck, fused)

    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(z)
        h = self.conv2(self.relu(self.bn2(self.conv1(z))))
        return self.conv3(self.relu(self.bn3(h))) + shortcut


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return conv1x1(in_channels, out_channels, stride)


def init_convs(model: nn.Module) -> None:
    """He initialisation of the convolutions (fan out); batch norms start as the identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def zero_init_last_bn(model: nn.Module) -> None:
    """The last batch norm of each residual block starts at zero: the block is the identity."""
    last: dict[type, Any] = {BasicBlock: "bn2", Bottleneck: "bn3"}
    for module in model.modules():
        for cls, name in last.items():
            if isinstance(module, cls):
                torch.nn.init.zeros_(getattr(module, name).weight)
