"""fuse() on modules that collect what their children give in a dict: torchvision's backbones."""

from __future__ import annotations

import collections
import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_checks import assert_same, primitives, twins
from test_fuse_zoo import shake_frozen
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d
from user_modules import C, conv, image

from resnet_kernels import explain, fuse, unfuse
from resnet_kernels.fusion.local_dicts import own_dict_stores

STEM = ("conv1", "bn1", "relu", "maxpool")
# Layers to return -> the ops of the stem.
RETURNED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("layer1", "layer4"): ("stem",),
    ("maxpool", "layer1"): ("stem",),
    ("relu", "layer2"): ("conv_bn_act",),
    # The relu works in place: what is returned as bn1 is what the relu made of it.
    ("bn1", "layer1"): ("conv_bn",),
    ("conv1", "layer1"): ("bn_act",),
    ("conv1", "bn1", "relu", "maxpool", "layer1"): (),
    ("relu",): ("conv_bn_act",),
    ("bn1",): ("conv_bn",),
}


def backbone(returned: tuple[str, ...], norm: Any = nn.BatchNorm2d) -> IntermediateLayerGetter:
    torch.manual_seed(0)
    names = {name: f"feature{i}" for i, name in enumerate(returned)}
    model = ResNet(BasicBlock, [2, 1, 1, 1], norm_layer=norm)
    return IntermediateLayerGetter(shake_frozen(model), names)


def stem_ops(model: nn.Module) -> tuple[str, ...]:
    """The ops that explain() shows for the stem."""
    rows = [row for row in explain(model).fused if set(row.layers) <= set(STEM)]
    return tuple(row.path.removesuffix(" (cpu)") for row in rows)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
@pytest.mark.parametrize("returned", RETURNED, ids="-".join)
def test_returned_layers(returned: tuple[str, ...], norm: Any) -> None:
    stock, fused = twins(backbone(returned, norm))
    assert_same(stock, fused, image(32, 3), steps=2)
    out = fused(image(32, 3))
    assert type(out) is OrderedDict and list(out) == list(stock(image(32, 3)))
    assert stem_ops(fused) == RETURNED[returned]
    with primitives() as ran:
        fused(image(32, 3))
    # Pooling alone is no reason for a plan.
    pooled = "maxpool" in dict(fused.named_children()) and bool(RETURNED[returned])
    assert ("max_pool_fwd" in ran) == pooled


def test_frozen_stem_without_gradients() -> None:
    """As detectors fine-tune: the stem and the first stage do not learn."""
    model = backbone(("layer1", "layer2"), FrozenBatchNorm2d)
    for name in ("conv1", "layer1"):
        model[name].requires_grad_(False)
    stock, fused = twins(model)
    assert_same(stock, fused, image(32, 3), steps=2)
    assert stem_ops(fused) == ("stem",)


def test_stem_opens_the_first_stage_with_recompute() -> None:
    stock, _ = twins(backbone(("layer1", "layer3")))
    fused = fuse(copy.deepcopy(stock), recompute="stage")
    assert_same(stock, fused, image(32, 3), steps=2)
    (row,) = (row for row in explain(fused).fused if "conv1" in row.layers)
    assert row.path == "residual_stage (cpu)" and "layer1.1.bn2" in row.layers


def test_unfuse_copy_and_pickle() -> None:
    stock, fused = twins(backbone(("layer1", "layer2")))
    assert fused.state_dict().keys() == stock.state_dict().keys()
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert stem_ops(other) == ("stem",)
        assert_same(copy.deepcopy(stock), other, image(32, 3))
    file = io.BytesIO()
    torch.save(fused, file)
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert type(loaded) is type(fused) and loaded.return_layers == stock.return_layers
    assert type(unfuse(fused)) is IntermediateLayerGetter
    assert_same(stock, fused, image(32, 3))


def test_what_is_returned_may_change() -> None:
    """The dict in `return_layers` is compared at every call, and so is the order of children."""
    stock, fused = twins(backbone(("layer1", "layer2")))
    changes: list[Callable[[Any], Any]] = [
        lambda m: m.return_layers.update(relu="early"),
        lambda m: m.return_layers.update(relu="other name"),
        lambda m: m.return_layers.pop("relu"),
        lambda m: setattr(m, "return_layers", {"layer1": "only"}),
        lambda m: m.pop("layer2"),
        lambda m: m.pop("maxpool"),
        lambda m: m.update({"last": nn.ReLU()}) or m.return_layers.update(last="last"),
    ]
    for change in changes:
        for model in (stock, fused):
            change(model)
        assert_same(stock, fused, image(32, 3))
        assert list(fused(image(32, 3))) == list(stock(image(32, 3)))


def test_compiled_backbone_returns_the_same() -> None:
    stock, fused = twins(backbone(("relu", "layer2")))
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    for mode in (True, False):
        expected, actual = stock.train(mode)(image(32, 3)), compiled.train(mode)(image(32, 3))
        assert list(actual) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value)


class Collects(nn.Module):
    """Base of user modules that collect the outputs of two chains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(), conv()
        self.bn1, self.bn2 = nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.cache: dict[str, Any] = {}

    def chain(self, x: torch.Tensor, number: int) -> torch.Tensor:
        x = self.conv1(x) if number == 1 else self.conv2(x)
        return (self.bn1(x) if number == 1 else self.bn2(x)).relu()


class PlainDict(Collects):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for number in (1, 2):
            x = self.chain(x, number)
            out[f"chain{number}"] = x
        return out


class OtherKeys(Collects):
    def forward(self, x: torch.Tensor) -> Any:
        out: dict[Any, Any] = {} if self.training else OrderedDict()
        x = self.chain(x, 1)
        return {1: x, (2, "b"): [x], 3.5: x, **out}


class OrderedKeys(Collects):
    def forward(self, x: torch.Tensor) -> Any:
        out: OrderedDict[Any, Any] = OrderedDict()
        x = self.chain(x, 1)
        out[1] = x
        out[2, "b"] = [x]
        out[3.5] = x
        return out


class CalledDict(Collects):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        out = dict()  # noqa: C408
        out["last" if self.training else "x"] = 1
        out["x"] = self.chain(x, 1)
        return out


class Stores(Collects):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.chain(x, 1)
        self.cache["last"] = x
        return x


class StoresByName(Collects):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = {} if self.training else self.cache
        x = self.chain(x, 1)
        out["last"] = x
        return x


class StoresLater(Collects):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: dict[str, Any] = {}
        x = self.chain(x, 1)
        out = self.cache
        out["last"] = x
        return x


class StoresByMethod(Collects):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.chain(x, 1)
        self.cache.update(last=x)
        return x


class StoresInArgument(Collects):
    def forward(self, x: torch.Tensor, found: Any = None) -> torch.Tensor:
        x = self.chain(x, 1)
        if found is not None:
            found = found or {}
            found["x"] = 1
        return x


class Marks(nn.Module):
    def __init__(self, marks: dict[str, Any]) -> None:
        super().__init__()
        self.marks = marks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.marks["doubled"] = True
        return x


class SharesDict(Collects):
    """A child changes in the middle of a forward what is read later in it."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = {"doubled": False}
        self.child = Marks(self.marks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.child(self.chain(x, 1))
        return x * 2 if self.marks["doubled"] else x


def test_dict_that_a_child_changes() -> None:
    torch.manual_seed(0)
    stock, fused = twins(SharesDict())
    assert_same(stock, fused, image())
    (reason,) = {row.reason for row in explain(fused).rows}
    assert reason == "forward reads the attribute marks, which another module shares"


REFUSED = (Stores, StoresByName, StoresLater, StoresByMethod, StoresInArgument)


@pytest.mark.parametrize("kind", [PlainDict, CalledDict])
def test_own_dicts_are_fused(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    stock, fused = twins(kind())
    assert_same(stock, fused, image(), steps=2)
    out = fused(image())
    assert type(out) is dict and list(out) == list(stock(image()))
    assert out is not fused(image())
    assert bool(explain(fused).fused) == (kind is PlainDict)


@pytest.mark.parametrize("kind", [OtherKeys, OrderedKeys])
def test_keys_that_are_no_names(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    stock, fused = twins(kind())
    assert_same(stock, fused, image())
    assert list(fused(image())) == list(stock(image())) == [1, (2, "b"), 3.5]
    assert [row.path for row in explain(fused).fused] == ["conv_bn_act (cpu)"]


@pytest.mark.parametrize("kind", REFUSED)
def test_stores_that_others_see_stay_as_they_are(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    stock, fused = twins(kind())
    assert not explain(fused).fused
    assert fused.cache == {}
    for mode in (True, False):
        for model in (stock, fused):
            model.train(mode)(image())
        assert fused.cache.keys() == stock.cache.keys()


def stored(function: Any) -> int:
    return len(own_dict_stores(function.__code__, function.__globals__))


def test_which_stores_are_into_an_own_dict() -> None:
    def all_three(keys: Any, a: int) -> Any:
        out, more = collections.OrderedDict(), {}
        out = OrderedDict()
        named = {"x": 1}
        for key in keys:
            named[key] = a
            named[f"{key}{a + 1}"] = a
            named[keys[0], a] = a
        return out, more

    def shuffled(a: int) -> Any:
        named = {"x": 1}
        named["x"] += a  # reads and writes in one: not followed
        named["x" if a else "y"] = 1
        return named

    def argument(named: Any) -> None:
        named = named or {}
        named["x"] = 1

    def shared() -> Any:
        named = {}
        named["x"] = 1
        return lambda: named

    def unpacked(other: Any) -> None:
        a, b = {}, other
        a["x"], b["x"] = 1, 2

    def of_a_call(make: Any) -> None:
        make()["x"] = 1
        make({}).named["x"] = 1

    def hidden_name() -> Any:
        dict = list
        named = dict()
        named["x"] = 1

    counts = [stored(f) for f in (all_three, shuffled, argument, shared, of_a_call, hidden_name)]
    assert counts == [3, 0, 0, 0, 0, 0]
    assert stored(unpacked) == 0
