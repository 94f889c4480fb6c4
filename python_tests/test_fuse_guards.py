"""The conditions of a plan: what could make a recorded forward wrong later or elsewhere."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwad
from model_checks import assert_near, assert_same, primitives, twins
from torch import nn
from user_modules import CASES, C, InPlaceSeenTwice, Pair, conv, image

from resnet_kernels import explain, fuse
from resnet_kernels import nn as blocks


class TwoNames(nn.Module):
    """One convolution under two names, called by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv()
        self.second = self.first
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.second(x)).relu()


def test_name_that_no_longer_means_the_same_module() -> None:
    stock, fused = twins(TwoNames())
    assert_same(stock, fused, image())
    for model in (stock, fused):
        torch.manual_seed(1)
        model.second = conv().double()
    assert_same(stock, fused, image())


class Pooled(nn.Module):
    def __init__(self, size: int, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.act = conv(), nn.BatchNorm2d(C), act
        self.pool = nn.AdaptiveAvgPool2d(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.act(self.bn(self.conv(x))))


def test_plan_of_another_instance_is_not_taken_over() -> None:
    """Same class and children, other settings of the children."""
    for size in (1, 2, 1):
        for act in (nn.GELU(), nn.GELU("tanh"), nn.LeakyReLU(0.1), nn.LeakyReLU(0.4)):
            assert_same(*twins(Pooled(size, act)), image())


def test_activation_turned_in_place_later() -> None:
    model = InPlaceSeenTwice()
    model.relu.inplace = False
    stock, fused = twins(model)
    assert_same(stock, fused, image())
    stock.relu.inplace = fused.relu.inplace = True
    assert_same(stock, fused, image())


def test_mismatched_dtype_of_a_bare_convolution_raises_as_torch() -> None:
    model = nn.Sequential(conv(), nn.ReLU())
    for candidate in (model, fuse(model)):
        with pytest.raises(RuntimeError):
            candidate(image())


def test_forward_mode_gradient() -> None:
    stock, fused = (m.eval() for m in twins(nn.Sequential(conv(), nn.BatchNorm2d(C), nn.ReLU())))
    x = image()
    tangents = []
    for model in (stock, fused):
        with fwad.dual_level():
            tangents.append(fwad.unpack_dual(model(fwad.make_dual(x, x.cos()))).tangent)
    assert_near(tangents[1], tangents[0], "tangent")


class RandomConstant(Pair):
    """Draws a number without naming a random function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return x if float(torch.empty(1).uniform_()) < 0.5 else -x


class Constant(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.bn1(self.conv1(x))) + torch.ones(1, dtype=torch.float64)


class OptionalField(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return y if getattr(x, "mask", None) is None else y * x.mask


class Logged(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.name_of(f"{x}")
        return self.relu(self.bn1(self.conv1(x)))

    def name_of(self, text: str) -> int:
        return len(text)


class Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: object, dx: torch.Tensor) -> torch.Tensor:
        return dx * 7


class CustomGradient(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Apply.apply(self.relu(self.bn1(self.conv1(x))))


class Ticket:
    """A class of the user's own, with a side effect when it is called."""

    issued = 0

    def __init__(self) -> None:
        type(self).issued += 1


class CallsClass(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Ticket()
        return self.relu(self.bn1(self.conv1(x)))


SWITCH = {"on": False}
FLAG = False


class GlobalDict(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return -y if SWITCH["on"] else y


class GlobalFlag(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return -y if FLAG else y


@pytest.mark.parametrize(
    "module", [RandomConstant, Constant, Logged, CustomGradient, GlobalDict, CallsClass]
)
def test_refused(module: type[nn.Module]) -> None:
    stock, fused = twins(module())
    assert not explain(fused).fused
    assert_same(stock, fused, image())


def test_optional_field_of_a_tensor() -> None:
    """A plain tensor has no such field; one that has it is not a plain case."""
    stock, fused = twins(OptionalField())
    assert_same(stock, fused, image())
    assert explain(fused).fused


def test_global_constant_changed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stock, fused = twins(GlobalFlag())
    assert explain(fused).fused
    assert_same(stock, fused, image())
    monkeypatch.setitem(GlobalFlag.forward.__globals__, "FLAG", True)
    assert_same(stock, fused, image())


def test_tensor_subclass_goes_the_modules_own_way() -> None:
    class Tagged(torch.Tensor):
        pass

    _, fused = twins(Pooled(1, nn.ReLU()))
    with primitives() as ran:
        fused.eval()(image().as_subclass(Tagged))
    assert not ran


def test_many_changes_end_unfused_but_right() -> None:
    class Scaled(Pair):
        factor = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.bn1(self.conv1(x))) * self.factor

    stock, fused = (model.eval() for model in twins(Scaled()))
    x = image()
    for i in range(100):
        stock.factor = fused.factor = 1.0 + i
        assert_near(fused(x).detach(), stock(x).detach(), f"factor {i}")


def test_other_threads_run_while_a_model_is_fused() -> None:
    """Tracing patches nn.Module for the whole process for a moment."""
    model, x, errors = Pooled(1, nn.ReLU()).double().eval(), image(), []
    expected, stop = model(x), threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                assert torch.equal(model(x), expected)
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=work)
    thread.start()
    for i in range(60):
        # A kernel size of its own, so that each model is traced.
        fuse(nn.Sequential(*[nn.Conv2d(1, 1, 1), nn.ReLU()] * (i + 1)))
    stop.set()
    thread.join()
    assert not errors, errors[0]


class PreactWithOtherSkip(Pair):
    """A pre-activation branch added to something else than its input."""

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        h = self.conv1(self.relu(self.bn1(x)))
        return self.conv2(self.relu(self.bn2(h))) + skip


def test_preactivation_branch_with_another_skip() -> None:
    stock, fused = twins(PreactWithOtherSkip())
    assert_same(stock, fused, image(), image().flip(0))
    assert {row.path for row in explain(fused).fused} == {"bn_act (cpu)", "conv_bn_act (cpu)"}


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d((3, 2), (2, 1), (1, 0)),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((1, None)),
    ],
    ids=str,
)
def test_poolings_behind_a_layer(pool: nn.Module) -> None:
    """Of odd sizes; the stem takes plain max pooling alone."""
    torch.manual_seed(0)
    stock, fused = twins(nn.Sequential(conv(), nn.BatchNorm2d(C), nn.ReLU(), pool))
    assert_same(stock, fused, image(10))


class SecondInputChanged(Pair):
    """Writes to its second input, which may be its first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1.requires_grad_(False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        early = self.conv1(x)
        y.zero_()
        return self.act(self.bn1(early)) + y


def test_inputs_that_are_one_tensor() -> None:
    stock, fused = (model.eval() for model in twins(SecondInputChanged()))
    results = []
    for model in (stock, fused):
        x = image()
        results.append(model(x, x).detach())
    assert_near(results[1], results[0], "output")


def test_running_statistics_in_strided_memory() -> None:
    """The kernels write dense vectors only, so torch's own batch norm updates these."""
    torch.manual_seed(0)
    stock, fused = twins(CASES["functional"].module())
    table = torch.stack([torch.zeros(C), torch.ones(C)], dim=1).double()
    fused.bn1.running_mean, fused.bn1.running_var = table[:, 0], table[:, 1]
    assert_same(stock, fused, image(), steps=2)
    assert_near(table[:, 0], stock.bn1.running_mean, "running_mean")


@pytest.mark.parametrize("change", [{"eps": 1}, {"momentum": 1}, {"momentum": None}])
def test_settings_the_ops_take_or_leave(change: dict[str, Any]) -> None:
    torch.manual_seed(0)
    stock, fused = twins(CASES["functional"].module())
    for model in (stock, fused):
        vars(model.bn1).update(change)
        model.bn2.num_batches_tracked = None
    assert_same(stock, fused, image(), steps=2)


def test_residual_of_another_dtype_under_autocast() -> None:
    """fp32 + bf16 is fp32: the block must not round its shortcut."""
    torch.manual_seed(0)
    stock = blocks.BasicBlock(C, C, fused=False)
    fused = fuse(copy.deepcopy(stock))
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = stock(image().float()), fused(image().float())
    assert actual.dtype == expected.dtype == torch.float32
    assert torch.equal(actual, expected)
