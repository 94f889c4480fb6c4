"""Residual blocks in a row as one call of inference: the same bits as block by block."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from test_chain_inference import Calls, calls, images, lively  # noqa: F401 - calls is a fixture
from torch import Tensor, nn
from torchvision.models import resnet

import resnet_kernels as rk
from resnet_kernels import models


def projection(c: int, k: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))


def bottlenecks(c: int = 24, blocks: int = 3) -> nn.Sequential:
    """Halves the image, then keeps its size."""
    first = resnet.Bottleneck(c, 16, 2, projection(c, 64, 2))
    return nn.Sequential(first, *(resnet.Bottleneck(64, 16) for _ in range(blocks - 1)))


def leaky_second() -> nn.Sequential:
    """Blocks of two activations: not one call."""
    model = bottlenecks()
    model[1].relu = nn.LeakyReLU(0.3)
    return model


class Trunk(nn.Module):
    """Blocks between other modules, some of them alone; also reads what a row gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(bottlenecks(), bottlenecks(64, 2))
        self.alone = resnet.Bottleneck(64, 16)
        self.last = bottlenecks(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(self.alone(h) + h)


# Model and how many rows its call runs.
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "sequential": (bottlenecks, 1),
    "nested": (lambda: nn.Sequential(bottlenecks(), nn.Sequential(bottlenecks(64))), 1),
    "interrupted": (lambda: nn.Sequential(bottlenecks(), nn.Dropout(), bottlenecks(64, 2)), 2),
    "two_activations": (leaky_second, 0),
    "trunk": (Trunk, 2),
    "one_block": (lambda: bottlenecks(blocks=1), 0),
}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, n: int, calls: Calls) -> None:  # noqa: F811
    make, rows = MODELS[name]
    stock = lively(make())
    model, x = rk.fuse(copy.deepcopy(stock)), images(n, 21, 24)
    with torch.no_grad():
        one, other, _ = calls.both(lambda: model(x))
        torch.testing.assert_close(one, stock(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(one, other)
    assert one.stride() == other.stride()
    assert calls.rows == rows


def test_more_images_than_lie_between_blocks_at_once(calls: Calls) -> None:  # noqa: F811
    """32 MiB of outputs between blocks: of these 83 images, 42 and then 41."""
    stock = lively(bottlenecks())
    model, x = rk.fuse(copy.deepcopy(stock)), images(83, 100, 24)
    with torch.no_grad():
        one, other, _ = calls.both(lambda: model(x))
        assert torch.equal(model(x[80:].contiguous(memory_format=torch.channels_last)), one[80:])
    assert torch.equal(one, other)
    assert calls.rows == 2


@pytest.mark.parametrize("n", [1, 2, 5])
def test_blocks_take_different_numbers_of_images_at_a_time(n: int, calls: Calls) -> None:  # noqa: F811
    """8 MiB of a block's output: 2, 2 and 1 images, then 5, then 1 at a time."""
    large = resnet.Bottleneck(24, 16, 1, projection(24, 64))
    wide = resnet.Bottleneck(64, 160, 1, projection(64, 640))
    stock = lively(
        nn.Sequential(
            large, resnet.Bottleneck(64, 16), bottlenecks(64, 2), wide, resnet.Bottleneck(640, 160)
        )
    )
    model, x = rk.fuse(copy.deepcopy(stock)), images(n, 112, 24)
    with torch.no_grad():
        one, other, _ = calls.both(lambda: model(x))
        torch.testing.assert_close(one, stock(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(one, other)
    assert calls.rows == 1


def test_every_layer_is_read_at_each_call(calls: Calls) -> None:  # noqa: F811
    model, x = rk.fuse(lively(bottlenecks())), images(2, 13, 24)
    with torch.no_grad():
        for block in model:
            for name in ("conv1", "bn2", "bn3"):
                before = model(x)
                getattr(block, name).weight.data.mul_(1.25)
                one, other, _ = calls.both(lambda: model(x))
                assert torch.equal(one, other)
                assert not torch.equal(one, before)
        model[1].conv2.stride = (2, 2)  # sizes that no longer fit: refused as torch refuses them
        with pytest.raises(RuntimeError, match="size"):
            model(x)


def test_hooks_inside_run(calls: Calls) -> None:  # noqa: F811
    model, x = rk.fuse(lively(bottlenecks(blocks=4))), images(1, 13, 24)
    seen: list[Tensor] = []
    with torch.no_grad():
        expected = model(x)
        handle = model[2].register_forward_hook(lambda module, args, out: seen.append(out))
        assert torch.equal(model(x), expected)
        assert len(seen) == 1
        handle.remove()
        inner = model[1].bn2.register_forward_hook(lambda module, args, out: out * 2)
        assert not torch.equal(model(x), expected)
        inner.remove()
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    "change",
    [lambda x: x.contiguous(), lambda x: x[:, :, ::2], lambda x: x[:0]],
    ids=["contiguous", "sliced", "empty"],
)
def test_other_tensors(change: Callable[[Tensor], Tensor], calls: Calls) -> None:  # noqa: F811
    stock = lively(bottlenecks())
    model, x = rk.fuse(copy.deepcopy(stock)), change(images(2, 21, 24))
    with torch.no_grad():
        torch.testing.assert_close(model(x), stock(x), rtol=1e-4, atol=1e-4)
    assert calls.rows == 0


def test_other_dtypes_and_errors(calls: Calls) -> None:  # noqa: F811
    stock = lively(bottlenecks())
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 13, 24)
    with torch.no_grad():
        for network in (stock, model):
            with pytest.raises(RuntimeError, match="channels"):
                network(x[:, :20])
        torch.testing.assert_close(model.double()(x.double()), stock.double()(x.double()))
    assert calls.rows == 0


def test_gradients_and_training_go_block_by_block(calls: Calls) -> None:  # noqa: F811
    stock = lively(bottlenecks())
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 13, 24)
    model(x).sum().backward()
    assert model[2].conv1.weight.grad is not None
    for network in (stock, model):
        network.train()
        with torch.no_grad():
            network(x)
    assert calls.rows == 0
    for name, buffer in stock.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, rtol=1e-4, atol=1e-5)


def test_copies_pickles_slices_and_unfuse(calls: Calls) -> None:  # noqa: F811
    model, x = rk.fuse(lively(bottlenecks())), images(2, 13, 24)
    with torch.no_grad():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), expected)
        assert calls.rows == 3
        assert torch.equal(model[2](model[:2](x)), expected)
        assert type(rk.unfuse(model)) is nn.Sequential
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert not [name for name in vars(model) if name.startswith("_rnk")]


def test_recompute_has_no_rows_of_its_own(calls: Calls) -> None:  # noqa: F811
    model = models.cifar_resnet18(num_classes=4).eval().to(memory_format=torch.channels_last)
    x = images(2, 16)
    with torch.no_grad():
        expected = rk.fuse(model)(x)
        assert calls.rows == 1
        assert torch.equal(rk.fuse(model, recompute="stage")(x), expected)
        assert calls.rows == 5  # a row for each of its stages
        assert torch.equal(rk.fuse(model)(x), expected)
    assert calls.rows == 6


def test_compiled(calls: Calls) -> None:  # noqa: F811
    model, x = rk.fuse(lively(bottlenecks(blocks=2))), images(2, 13, 24)
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-5)
    assert calls.rows == 1
