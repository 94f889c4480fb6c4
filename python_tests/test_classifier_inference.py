"""Blocks, the mean of each channel and nn.Linear as one call of inference: the bits of the ops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_chain_inference import Calls, calls, images, lively  # noqa: F401 - calls is a fixture
from test_kept_chain import check_freed
from test_row_inference import bottlenecks
from torch import Tensor, nn
from torchvision.models import resnet

import resnet_kernels as rk
from resnet_kernels.fusion import inference


class Classifier(nn.Module):
    """A stem, blocks and a classifier, its features flattened in one of two ways."""

    def __init__(self, method: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.blocks = bottlenecks()
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, 37, bias=bias)
        self.method = method

    def features(self, x: Tensor) -> Tensor:
        return self.avgpool(self.blocks(self.maxpool(self.relu(self.bn(self.conv(x))))))

    def forward(self, x: Tensor) -> Any:
        pooled = self.features(x)
        return self.fc(pooled.flatten(1) if self.method else torch.flatten(pooled, 1))


class Dropped(Classifier):
    """Something in between: not one call."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.dropout(torch.flatten(self.features(x), 1)))


class Both(Classifier):
    """Gives its features too: not one call."""

    def forward(self, x: Tensor) -> Any:
        features = torch.flatten(self.features(x), 1)
        return self.fc(features), features


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each row of blocks with a classifier: whether it was served."""
    seen: list[bool] = []
    row = inference.row

    def noting(*args: Any) -> Any:
        z = row(*args)
        if len(args) > 3 and args[3] is not None:
            seen.append(z is not None)
        return z

    monkeypatch.setattr(inference, "row", noting)
    return seen


def compare(stock: nn.Module, x: Tensor, calls: Calls) -> None:  # noqa: F811
    """Checks three calls against the ops one by one and against torch."""
    model = rk.fuse(copy.deepcopy(stock))
    with torch.no_grad():
        for _ in range(3):
            one, other, _ = calls.both(lambda: model(x))
            torch.testing.assert_close(one, other, rtol=0, atol=0)
            torch.testing.assert_close(one, stock(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("kwargs", [{}, {"method": True}, {"bias": False}])
def test_one_call(
    kwargs: dict[str, bool],
    n: int,
    calls: Calls,  # noqa: F811
    whole: list[bool],
) -> None:
    compare(lively(Classifier(**kwargs)), images(n, 20), calls)
    assert whole == [True] * 3


@pytest.mark.parametrize(("size", "served"), [(224, True), (32, False)])
def test_models(size: int, served: bool, calls: Calls, whole: list[bool]) -> None:  # noqa: F811
    """A last stage of one pixel goes layer by layer."""
    for stock in (resnet.resnet18(num_classes=1000), resnet.resnet50(num_classes=3)):
        compare(lively(stock), images(1, size), calls)
    assert whole == [served] * 6


@pytest.mark.parametrize("make", [Dropped, Both])
def test_other_ends_run_by_themselves(
    make: Callable[[], nn.Module],
    calls: Calls,  # noqa: F811
    whole: list[bool],
) -> None:
    compare(lively(make()), images(2, 20), calls)
    assert whole == []


def test_hooks_run() -> None:
    model, x = rk.fuse(lively(Classifier())), images(2, 20)
    with torch.no_grad():
        expected = model(x)
        for name in ("avgpool", "fc", "blocks"):
            seen: list[Tensor] = []
            hook = lambda module, args, out: seen.append(out)  # noqa: B023, E731
            handle = getattr(model, name).register_forward_hook(hook)
            torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
            assert len(seen) == 1
            handle.remove()
        assert torch.equal(model(x), expected)


def new_weight(m: Any) -> None:
    m.fc.weight = nn.Parameter(m.fc.weight.detach() * 2)


def new_values(m: Any) -> None:
    m.fc.weight.data.mul_(2)


def new_memory(m: Any) -> None:
    m.fc.weight.data = m.fc.weight.data * 3


def new_bias(m: Any) -> None:
    m.fc.bias = nn.Parameter(m.fc.bias.detach() + 1)


def no_bias(m: Any) -> None:
    m.fc.bias = None


def new_layer(m: Any) -> None:
    torch.manual_seed(5)
    m.fc = nn.Linear(64, 11)


def no_layer(m: Any) -> None:
    m.fc = nn.Identity()


def larger_mean(m: Any) -> None:
    m.avgpool.output_size = (1, 1, 1)[:2]
    m.fc.weight.data.neg_()


def conv_weight(m: Any) -> None:
    m.conv.weight = nn.Parameter(m.conv.weight.detach() * -1)


CHANGES = [
    new_weight, new_values, new_memory, new_bias, no_bias, new_layer, no_layer, larger_mean,
    conv_weight,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_is_seen(change: Callable[[Any], None]) -> None:
    stock = lively(Classifier())
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 20)
    with torch.no_grad():
        before = [model(x) for _ in range(3)][-1]
        change(model), change(stock)
        for _ in range(3):
            after = model(x)
            assert after.shape != before.shape or not torch.equal(after, before)
            torch.testing.assert_close(after, stock(x), rtol=1e-4, atol=1e-4)


def test_a_layer_that_does_not_fit_is_refused_as_by_torch() -> None:
    for change in (
        lambda m: setattr(m, "fc", nn.Linear(63, 10)),
        lambda m: m.fc.double(),
    ):
        stock = lively(Classifier())
        model, x = rk.fuse(copy.deepcopy(stock)), images(2, 20)
        for network in (stock, model):
            change(network)
            with torch.no_grad(), pytest.raises(RuntimeError, match=r"shape|dtype|scalar type"):
                network(x)


def test_a_transposed_weight(calls: Calls, whole: list[bool]) -> None:  # noqa: F811
    stock = lively(Classifier())
    stock.fc.weight = nn.Parameter(stock.fc.weight.detach().t().contiguous().t())
    compare(stock, images(2, 20), calls)
    assert whole == [False] * 3


def test_features_and_classes_in_turn() -> None:
    """The same layers with the classifier, and without where it cannot be: a chain each."""
    model, x = rk.fuse(lively(Classifier())), images(2, 20)
    model.fc.weight = nn.Parameter(model.fc.weight.detach().t().contiguous().t())
    with torch.no_grad():
        first = model(x)
        kept = [inference._kept[m] for m in (model.fc, model.conv)]
        assert torch.equal(model(x), first)
        assert [inference._kept[m] for m in (model.fc, model.conv)] == kept


def test_gradients_go_layer_by_layer(calls: Calls) -> None:  # noqa: F811
    model, x = rk.fuse(lively(Classifier())), images(2, 20)
    model(x).sum().backward()
    assert model.fc.weight.grad is not None
    assert calls.rows == 0


def test_freed_with_the_model() -> None:
    check_freed(Classifier)
