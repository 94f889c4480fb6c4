"""Modules as users write them, kind and unkind to tracing. `CASES` pairs each with inputs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

C = 6


def conv(cin: int = C, cout: int = C, k: int = 3, stride: int = 1, **kw: Any) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, k, stride, k // 2, bias=kw.pop("bias", False), **kw)


def image(size: int = 8, channels: int = C) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(3, channels, size, size, dtype=torch.float64, generator=generator)


class Pair(nn.Module):
    """Two layers and a shared relu: what most cases start from."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(), nn.BatchNorm2d(C)
        self.conv2, self.bn2 = conv(), nn.BatchNorm2d(C)
        self.relu = nn.ReLU(inplace=True)
        self.act = nn.ReLU()


class KuangliuBlock(nn.Module):
    """The block of the kuangliu/pytorch-cifar repository."""

    def __init__(self, cin: int = C, cout: int = 2 * C, stride: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = conv(cout, cout), nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        out = F.relu(out)
        return out


class LambdaLayer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class LambdaShortcut(KuangliuBlock):
    """CIFAR ResNet-20 as akamaster/pytorch_resnet_cifar10 writes it."""

    def __init__(self) -> None:
        super().__init__()
        planes = 2 * C
        self.shortcut = LambdaLayer(
            lambda x: F.pad(
                x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4), "constant", 0
            )
        )


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class CustomActivation(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.swish = Swish()

    def forward(self, x: Tensor) -> Tensor:
        return self.swish(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class ConvUsedTwice(Pair):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        return self.relu(self.bn1(y)) + y.mean()


class BnUsedTwice(Pair):
    def forward(self, x: Tensor) -> Tensor:
        t = self.bn1(self.conv1(x))
        return self.act(t) + self.bn2(self.conv2(t))


class InPlaceSeenTwice(Pair):
    """relu works in place, so the later use of t sees the activated value."""

    def forward(self, x: Tensor) -> Tensor:
        t = self.bn1(self.conv1(x))
        z = self.relu(t)
        return z + self.conv2(t)


class ChangesInput(Pair):
    """Adds to its input in place: the caller sees it."""

    def forward(self, x: Tensor) -> Tensor:
        x += self.bn1(self.conv1(x * 2))
        return self.relu(self.bn2(self.conv2(x)))


class InputChangedBetween(Pair):
    """The input is changed after the convolution has read it and before the chain ends."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        with_old = self.conv1(x.detach())
        x.relu_()
        return self.act(self.bn1(with_old)) + x


class ResidualChangedBetween(Pair):
    def forward(self, x: Tensor) -> Tensor:
        identity = x * 1
        view = identity.view(identity.shape)
        t = self.bn1(self.conv1(x))
        out = t + identity
        view.mul_(2)
        return self.act(out) + view.mean()


class Functional(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return torch.relu(self.bn2(self.conv2(x)).add(x))


class Methods(Pair):
    def forward(self, x: Tensor) -> Tensor:
        z = self.bn1(self.conv1(x)).relu_()
        return self.bn2(self.conv2(z)).add_(x).relu()


class TrainingSwitch(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if self.training:
            return x
        return self.relu(self.bn2(self.conv2(x)))


class RandomDepth(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if random.random() < 0.5:
            return self.relu(self.bn2(self.conv2(x)))
        return x


class TorchRandomDepth(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if torch.rand(1).item() < 0.5:
            return self.relu(self.bn2(self.conv2(x)))
        return x


class DataDependent(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if x.mean() > 0.4:
            return self.relu(self.bn2(self.conv2(x)))
        return x


class TypeSwitch(Pair):
    def forward(self, x: Any) -> Tensor:
        x = x if isinstance(x, Tensor) else torch.cat(x, 0)
        return self.relu(self.bn1(self.conv1(x)))


class Counter(Pair):
    """Writes state in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.relu(self.bn1(self.conv1(x)))
        return x * self.calls


class MutableSetting(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.settings = {"second": True}

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x))) if self.settings["second"] else x


class MutableList(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.order = [True]

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x))) if self.order[0] else x


class GradMode(Pair):
    """Its branch depends on autograd's mode."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return x if torch.is_grad_enabled() else -x


class NoGradPart(Pair):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


class Reused(Pair):
    """One layer called twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn1(self.conv1(x)))


class ReusedAcross(Pair):
    """The second call of bn1 stands inside the first one's chain."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.bn1(self.conv1(x))
        b = self.bn1(self.conv2(x))
        return self.act(b) - self.act(a)


class Keywords(Pair):
    def forward(self, x: Tensor, *, residual: Tensor | None = None, scale: float = 1.0) -> Tensor:
        t = self.bn1(self.conv1(x))
        if residual is not None:
            t = t + residual
        return self.relu(t) * scale


class Nested(Pair):
    """Inputs in a list, outputs in a dict of lists."""

    def forward(self, xs: list[Tensor], second: bool = True) -> dict[str, Any]:
        a = self.relu(self.bn1(self.conv1(xs[0])))
        b = self.relu(self.bn2(self.conv2(xs[1])))
        return {"both": [a, b], "sum": a + b} if second else {"both": [a], "sum": a}


class Broadcast(Pair):
    """The residual has one pixel: torch broadcasts it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn1(self.conv1(x)) + x.mean((2, 3), keepdim=True))


class Norms(nn.Module):
    """Batch norms of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(bias=True) for _ in range(4))
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(C, momentum=None),
                nn.BatchNorm2d(C, track_running_stats=False),
                nn.BatchNorm2d(C, affine=False, eps=1e-2),
                nn.BatchNorm2d(C, momentum=0.7),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), 0.2)
        return x


class ParameterScale(Pair):
    """Uses a parameter and a buffer of its own, as layer scale does."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((C, 1, 1), 0.3, dtype=torch.float64))
        self.register_buffer("shift", torch.full((C, 1, 1), 0.1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn1(self.conv1(x))) * self.gain + self.shift


class Case(NamedTuple):
    module: Callable[[], nn.Module]
    # Operations explain() must show; empty where the module has to stay as it was.
    ops: tuple[str, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012


def _sequential() -> nn.Module:
    return nn.Sequential(
        conv(), nn.BatchNorm2d(C), nn.GELU(), nn.BatchNorm2d(C), nn.SiLU(), conv(bias=True),
        nn.LeakyReLU(0.3), conv(), nn.ReLU6(), nn.Identity(), conv(), nn.Identity(),
        nn.BatchNorm2d(C), nn.Hardswish(),
    )  # fmt: skip


CASES: dict[str, Case] = {
    "sequential": Case(_sequential, ("conv_bn_act", "bn_act", "conv_act", "conv_bn")),
    "kuangliu": Case(KuangliuBlock, ("basic_block",)),
    "kuangliu_identity": Case(lambda: KuangliuBlock(C, C, 1), ("basic_block",)),
    "lambda_shortcut": Case(LambdaShortcut, ("basic_block",)),
    "custom_activation": Case(CustomActivation, ("conv_bn_act", "conv_bn")),
    "conv_used_twice": Case(ConvUsedTwice, ("bn_act",)),
    "bn_used_twice": Case(BnUsedTwice, ("conv_bn", "conv_bn_add")),
    "in_place_seen_twice": Case(InPlaceSeenTwice, ("conv_bn",)),
    "changes_input": Case(ChangesInput, ("conv_bn", "conv_bn_act")),
    "input_changed_between": Case(InputChangedBetween, ("bn_act",)),
    "residual_changed_between": Case(ResidualChangedBetween, ("conv_bn_add",)),
    "functional": Case(Functional, ("conv_bn_act", "conv_bn_add_act")),
    "methods": Case(Methods, ("basic_block",)),
    "training_switch": Case(TrainingSwitch, ("conv_bn_act",)),
    "random_depth": Case(RandomDepth, ()),
    "torch_random_depth": Case(TorchRandomDepth, ()),
    "data_dependent": Case(DataDependent, ()),
    "type_switch": Case(TypeSwitch, ("conv_bn_act",)),
    "type_switch_list": Case(TypeSwitch, ("conv_bn_act",), ([image(), image()],)),
    "counter": Case(Counter, ()),
    "mutable_setting": Case(MutableSetting, ("conv_bn_act",)),
    "grad_mode": Case(GradMode, ()),
    "no_grad_part": Case(NoGradPart, ()),
    "reused": Case(Reused, ("conv_bn_act",)),
    "reused_across": Case(ReusedAcross, ("conv_bn",)),
    "keywords": Case(Keywords, ("conv_bn_act",), (image(),), {"residual": image(), "scale": 0.5}),
    "nested": Case(Nested, (), ([image(), image()],)),
    "nested_constant": Case(Nested, (), ([image(), image()], False)),
    "broadcast": Case(Broadcast, ("conv_bn_add_act",)),
    "norms": Case(Norms, ("conv_bn_act",)),
    "parameter_scale": Case(ParameterScale, ("conv_bn_act",)),
}
