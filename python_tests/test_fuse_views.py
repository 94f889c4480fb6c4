"""Forwards with `.view()`, which takes no channels_last activation apart, fused and unfused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from model_checks import assert_same, twins
from torch import Tensor, nn
from user_modules import C, LambdaLayer, Pair, conv, image

from resnet_kernels import fuse, unfuse


def flat(x: Tensor) -> Tensor:
    return x.view(x.size(0), -1)


def chain(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv(), nn.BatchNorm2d(C), nn.ReLU(inplace=True), *more)


class Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


class Own(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return x.view(-1, C * 64)


class Outer(nn.Module):
    """No layer of its own; the view is in a function that it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = chain(), nn.Linear(C * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(flat(self.features(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = conv(bias=True)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        q = self.query(x).view(n, c, h * w)
        return torch.softmax(q.transpose(1, 2) @ q, dim=-1)


class Untraceable(nn.Module):
    """Writes state, so that no plan can run its view."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.calls = chain(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.features(x).view(x.size(0), -1)


class WritesToView(Pair):
    """A copy in place of the view would lose what is written."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        y.view(y.size(0), -1).mul_(2)
        return y + 1


class OtherViews(Pair):
    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        z = self.conv2(x).view_as(torch.flatten(x, 1))
        return y.view(torch.int64).view(torch.float64).mean() + z


CASES: dict[str, Callable[[], nn.Module]] = {
    "own": Own,
    "outer": Outer,
    "module": lambda: chain(Flatten(), nn.Linear(C * 64, 2)),
    "lambda": lambda: chain(LambdaLayer(lambda x: x.view(x.shape[0], -1))),
    "attention": Attention,
    "untraceable": Untraceable,
    "writes_to_view": WritesToView,
    "other_views": OtherViews,
}


@pytest.mark.parametrize("recompute", [None, "stage"])
@pytest.mark.parametrize("name", list(CASES))
def test_same_as_stock(name: str, recompute: str | None) -> None:
    torch.manual_seed(0)
    stock, fused = twins(CASES[name]())
    fuse(fused, recompute=recompute)
    assert_same(stock, fused, image(), steps=2)
    for copied in (copy.deepcopy(fused), fuse(copy.deepcopy(fused)), unfuse(copy.deepcopy(fused))):
        assert_same(copy.deepcopy(stock), copied, image())


@pytest.mark.parametrize("name", list(CASES))
def test_unfuse_gives_the_memory_format_back(name: str) -> None:
    model = CASES[name]()
    strides = {n: p.stride() for n, p in model.named_parameters()}
    attributes = [set(vars(module)) for module in model.modules()]
    fuse(fuse(model))
    unfuse(copy.deepcopy(fuse(model)))
    unfuse(model)
    assert {n: p.stride() for n, p in model.named_parameters()} == strides
    assert [set(vars(module)) for module in model.modules()] == attributes


def test_weights_in_channels_last_stay_so() -> None:
    model = chain().to(memory_format=torch.channels_last)
    unfuse(fuse(model))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_only_views_out_of_reach_keep_the_model_contiguous() -> None:
    for name in CASES:
        model = fuse(CASES[name]())
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
        moved = [w.is_contiguous(memory_format=torch.channels_last) for w in weights]
        assert all(moved) == (name not in ("untraceable", "writes_to_view")), name


@pytest.mark.parametrize("name", ["own", "outer", "module", "attention"])
def test_compiles(name: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    stock, fused = (m.eval() for m in twins(CASES[name]()))
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(image()), stock(image()), rtol=1e-9)
