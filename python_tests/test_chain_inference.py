"""Chains of layers that run in one call where no gradient is wanted: the same bits as op by op."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet

import resnet_kernels as rk
from resnet_kernels.fusion import inference


class Calls:
    """Counts what chain_inference served; `on` False sends all calls the other way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.served, self.rows, self.asked, self.on = 0, 0, 0, True
        serves = inference.serves

        def count(name: str) -> None:
            run = getattr(inference, name)

            def counting(*args):
                z = run(*args)
                self.asked += 1
                self.served += z is not None
                self.rows += name == "row" and z is not None
                return z

            monkeypatch.setattr(inference, name, counting)

        count("chain")
        count("row")
        count("stem")
        monkeypatch.setattr(inference, "serves", lambda x: self.on and serves(x))

    def both(self, f: Callable[[], Tensor]) -> tuple[Tensor, Tensor, int]:
        """With chains, without, and how many were served."""
        before = self.served
        one = f()
        served = self.served - before
        self.on = False
        try:
            return one, f(), served
        finally:
            self.on = True


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def lively(model: nn.Module) -> nn.Module:
    """Statistics and parameters of batch norms that are not 0 and 1, so that each one counts."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for vector in (module.weight, module.running_var):
                nn.init.uniform_(vector, 0.5, 1.5)
            for vector in (module.bias, module.running_mean):
                nn.init.normal_(vector, 0.0, 0.2)
    return model.eval().to(memory_format=torch.channels_last)


def images(n: int, size: int, channels: int = 3) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(n, channels, size, size).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("n", [1, 3])
def test_models(name: str, n: int, calls: Calls) -> None:
    stock = lively(getattr(resnet, name)(num_classes=5))
    model, x = rk.fuse(copy.deepcopy(stock)), images(n, 65)
    with torch.no_grad():
        one, other, served = calls.both(lambda: model(x))
        torch.testing.assert_close(one, stock(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(one, other)
    assert (served, calls.rows) == (1, 1)  # the stem with its pooling, and all blocks


class Layer(nn.Module):
    """One layer, with a residual if the sizes allow it."""

    def __init__(self, conv: nn.Conv2d, residual: bool, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.act = conv, nn.BatchNorm2d(conv.out_channels), act
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return self.act(y + x if self.residual else y)


LAYERS = {
    "stem": (nn.Conv2d(3, 20, 7, 2, 3, bias=False), False, nn.ReLU()),
    "residual": (nn.Conv2d(20, 20, 3, 1, 1, bias=False), True, nn.SiLU()),
    "leaky": (nn.Conv2d(33, 70, 1, 2, bias=False), False, nn.LeakyReLU(0.3)),
    "dilated": (nn.Conv2d(8, 40, (3, 2), (1, 2), (2, 0), (2, 3), bias=False), False, nn.ReLU()),
    "deep": (nn.Conv2d(300, 36, 3, 2, 1, bias=False), False, nn.ReLU()),
}


@pytest.mark.parametrize("size", [5, 16, 40])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, size: int, calls: Calls) -> None:
    model = rk.fuse(lively(Layer(*copy.deepcopy(LAYERS[name]))))
    x = images(2, size, model.conv.in_channels)
    with torch.no_grad():
        one, other, served = calls.both(lambda: model(x))
    assert served == 1
    assert torch.equal(one, other)
    assert one.stride() == other.stride()


@pytest.mark.parametrize("projects", [False, True])
def test_more_images_than_run_at_once(projects: bool, calls: Calls) -> None:
    """A group of images has about a million outputs: here 11, 11 and 1 images."""
    skip = nn.Sequential(nn.Conv2d(24, 64, 1, bias=False), nn.BatchNorm2d(64))
    block = resnet.Bottleneck(24, 16, downsample=skip) if projects else resnet.Bottleneck(64, 16)
    stock = lively(block)
    model, x = rk.fuse(copy.deepcopy(stock)), images(23, 38, 24 if projects else 64)
    with torch.no_grad():
        one, other, served = calls.both(lambda: model(x))
        torch.testing.assert_close(one, stock(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(one, other)
    assert served == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [7, 14, 31])
def test_no_bit_depends_on_the_number_of_threads(threads: int, size: int) -> None:
    model, x = rk.fuse(lively(Layer(*copy.deepcopy(LAYERS["deep"])))), images(3, size, 300)
    before = torch.get_num_threads()
    with torch.no_grad():
        for _ in range(2):
            expected = model(x)  # the second time with a packed filter
        try:
            torch.set_num_threads(threads)
            assert torch.equal(model(x), expected)
        finally:
            torch.set_num_threads(before)


def fp64(model: nn.Module, x: Tensor) -> Tensor:
    model.double()
    return x.double()


def mixed(model: nn.Module, x: Tensor) -> Tensor:
    """A dtype changed under a plan that has run."""
    model.bn.double()
    return x


def bias(model: nn.Module, x: Tensor) -> Tensor:
    model.conv.bias = nn.Parameter(torch.arange(20) / 8)
    return x


def contiguous(model: nn.Module, x: Tensor) -> Tensor:
    return x.contiguous()


def sliced(model: nn.Module, x: Tensor) -> Tensor:
    return x[:, :, ::2]


def empty(model: nn.Module, x: Tensor) -> Tensor:
    return x[:0]


def training(model: nn.Module, x: Tensor) -> Tensor:
    model.bn.train()
    return x


def no_statistics(model: nn.Module, x: Tensor) -> Tensor:
    model.bn.running_mean = model.bn.running_var = None
    return x


def plain_bn(model: nn.Module, x: Tensor) -> Tensor:
    model.bn.weight = model.bn.bias = None
    return x


def same_padding(model: nn.Module, x: Tensor) -> Tensor:
    model.conv.stride, model.conv.padding = (1, 1), "same"
    return x


OTHERS = [
    fp64, bias, contiguous, sliced, empty, training, no_statistics, plain_bn, same_padding,
]  # fmt: skip


@pytest.mark.parametrize("change", OTHERS, ids=lambda f: f.__name__)
def test_others_go_op_by_op(change, calls: Calls) -> None:
    stock = lively(Layer(*copy.deepcopy(LAYERS["stem"])))
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 12)
    with torch.no_grad():
        model(x)
        assert calls.served == 1
        y = change(model, x)
        assert torch.equal(y, change(stock, x))
        torch.testing.assert_close(model(y), stock(y), rtol=1e-4, atol=1e-4)
    assert calls.served == 1


@pytest.mark.parametrize(("channels", "size"), [(1, 9), (20, 1)])
def test_where_both_formats_fit_the_output_has_that_of_the_other_way(
    channels: int, size: int, calls: Calls
) -> None:
    model = Layer(nn.Conv2d(channels, 20, 3, 1, 2, bias=False), False, nn.ReLU())
    model = rk.fuse(lively(model))
    model.conv.weight.data = model.conv.weight.data.contiguous()
    with torch.no_grad():
        one, other, _ = calls.both(lambda: model(images(2, size, channels)))
    assert torch.equal(one, other)
    assert one.stride() == other.stride()


def test_errors_are_those_of_torch(calls: Calls) -> None:
    stock = lively(Layer(*copy.deepcopy(LAYERS["stem"])))
    model = rk.fuse(copy.deepcopy(stock))
    for x in (images(2, 12, 4), images(2, 12).double(), images(2, 12)[:, :, 0]):
        for network in (stock, model):
            with torch.no_grad(), pytest.raises(RuntimeError, match=r"expected input|type"):
                network(x)
    mixed(model, images(2, 12)), mixed(stock, images(2, 12))
    for network in (stock, model):
        with torch.no_grad(), pytest.raises(RuntimeError):
            network(images(2, 12))
    assert calls.served == 0


def test_changes_are_seen(calls: Calls) -> None:
    """Geometry, eps and every tensor are read at each call."""
    stock = lively(Layer(*copy.deepcopy(LAYERS["stem"])))
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 12)

    def change(network: nn.Module, step: int) -> None:
        conv, bn = network.conv, network.bn
        if step == 0:
            conv.stride, conv.padding = (1, 2), (0, 4)
        elif step == 1:
            bn.eps = 0.5
        elif step < 6:
            vectors = (bn.weight, bn.bias, bn.running_mean, bn.running_var)
            vectors[step - 2].data.mul_(1.5)
        else:
            conv.weight.data.mul_(-1)

    with torch.no_grad():
        for step in range(7):
            before = model(x)
            change(model, step), change(stock, step)
            after = model(x)
            assert after.shape != before.shape or not torch.equal(after, before)
            torch.testing.assert_close(after, stock(x), rtol=1e-4, atol=1e-4)
    assert calls.served == calls.asked == 14


def test_where_gradients_are_wanted_there_are_no_chains(calls: Calls) -> None:
    model, x = rk.fuse(lively(Layer(*copy.deepcopy(LAYERS["stem"])))), images(2, 12)
    model(x).sum().backward()
    assert model.conv.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype is torch.bfloat16
    assert calls.served == 0
