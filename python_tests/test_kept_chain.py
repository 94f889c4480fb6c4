"""What the library keeps of a chain between calls is as new as the modules, and freed with them."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bn_cases import OPS
from test_chain_inference import Calls, calls, images, lively  # noqa: F401
from test_row_inference import bottlenecks
from torch import Tensor, nn
from torchvision.models import resnet

import resnet_kernels as rk


class Stem(nn.Module):
    """A stem and blocks behind it, and a classifier."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 24, 5, 1, 2, bias=False), nn.BatchNorm2d(24)
        self.act = act or nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = bottlenecks(24)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.pool(self.act(self.bn(self.conv(x)))))
        return self.fc(h.mean((2, 3)))


def new_weight(m: Any) -> None:
    m.conv.weight = nn.Parameter(m.conv.weight.detach() * -1)


def new_gamma(m: Any) -> None:
    m.blocks[1].bn2.weight = nn.Parameter(m.blocks[1].bn2.weight.detach() + 1)


def new_statistics(m: Any) -> None:
    m.bn.running_var = m.bn.running_var * 3


def new_bn(m: Any) -> None:
    bn = nn.BatchNorm2d(64).eval()
    bn.running_mean.fill_(0.3)
    m.blocks[2].bn3 = bn


def new_block(m: Any) -> None:
    torch.manual_seed(7)
    m.blocks[1] = lively(resnet.Bottleneck(64, 16))


def other_state(m: Any) -> None:
    state = {name: value * 0.9 for name, value in m.state_dict().items() if value.dim()}
    m.load_state_dict({**m.state_dict(), **state}, assign=True)


def new_dictionary(m: Any) -> None:
    m.conv.__dict__["_parameters"] = {"weight": nn.Parameter(-m.conv.weight.detach()), "bias": None}


def other_data(m: Any) -> None:
    m.blocks[0].conv2.weight.data = m.blocks[0].conv2.weight.data.clone() * -1


def shorter(m: Any) -> None:
    m.blocks[2] = nn.Identity()


def pool_kernel(m: Any) -> None:
    m.pool.kernel_size = 2


def pool_stride(m: Any) -> None:
    m.pool.stride = 1


def with_bias(m: Any) -> None:
    torch.manual_seed(8)
    m.blocks[0].conv1.bias = nn.Parameter(torch.randn(16))


def fc_weight(m: Any) -> None:
    m.fc.weight = nn.Parameter(m.fc.weight.detach() * 2)


def fc_data(m: Any) -> None:
    m.fc.weight.data.mul_(2)


def fc_no_bias(m: Any) -> None:
    m.fc.bias = None


CHANGES = [
    new_weight, new_gamma, new_statistics, new_bn, new_block, other_state, new_dictionary,
    other_data, shorter, pool_kernel, pool_stride, with_bias, fc_weight, fc_data, fc_no_bias,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_is_seen(change: Callable[[Any], None]) -> None:
    stock = lively(Stem())
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 20)
    with torch.no_grad():
        for _ in range(3):
            before = model(x)
        change(model), change(stock)
        for _ in range(3):
            after = model(x)
            assert not torch.equal(after, before)
            torch.testing.assert_close(after, stock(x), rtol=1e-4, atol=1e-4)


def test_one_call_for_stem_pooling_and_blocks(calls: Calls) -> None:  # noqa: F811
    model, x = rk.fuse(lively(Stem())), images(2, 20)
    with torch.no_grad():
        one, other, served = calls.both(lambda: model(x))
    assert torch.equal(one, other)
    assert (served, calls.rows) == (1, 1)


def test_a_stem_of_another_activation_has_its_own_call(calls: Calls) -> None:  # noqa: F811
    stock = lively(Stem(nn.SiLU()))
    model, x = rk.fuse(copy.deepcopy(stock)), images(2, 20)
    with torch.no_grad():
        one, other, served = calls.both(lambda: model(x))
        torch.testing.assert_close(one, stock(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(one, other)
    assert (served, calls.rows) == (2, 1)


def test_an_image_smaller_than_the_pooling_is_refused_as_by_torch() -> None:
    stock = lively(Stem())
    stock.pool = nn.MaxPool2d(9, 2, 1)
    model = rk.fuse(copy.deepcopy(stock))
    for network in (stock, model):
        with torch.no_grad(), pytest.raises(RuntimeError, match=r"[Oo]utput size|pool"):
            network(images(1, 5))


def check_freed(make: Callable[[], nn.Module]) -> None:
    """Nothing holds the tensors of a model that has run and is gone."""
    model, x = rk.fuse(lively(make())), images(1, 20)
    with torch.no_grad():
        for _ in range(3):
            model(x)
    tensors = [weakref.ref(t) for t in (*model.parameters(), *model.buffers())]
    del model
    gc.collect()
    assert not [t for t in tensors if t() is not None]


def test_freed_with_the_model() -> None:
    check_freed(Stem)


def test_a_replaced_weight_is_freed_by_the_next_call() -> None:
    model, x = rk.fuse(lively(Stem())), images(1, 20)
    with torch.no_grad():
        model(x)
        before = weakref.ref(model.blocks[1].conv2.weight)
        model.blocks[1].conv2.weight = nn.Parameter(torch.randn(16, 16, 3, 3))
        model(x)
    gc.collect()
    assert before() is None


def test_a_chain_that_is_served_no_more_is_freed() -> None:
    model, x = rk.fuse(lively(Stem())), images(1, 20)
    with torch.no_grad():
        model(x)
        before = weakref.ref(model.conv.weight)
        model.conv.weight = nn.Parameter(torch.randn(24, 3, 5, 5))
        for block in model.blocks:
            block.conv1.bias = nn.Parameter(torch.zeros(16))
        model(x)
    gc.collect()
    assert before() is None


def test_linear_has_the_same_bits_at_every_call() -> None:
    """Packed for the call, then kept."""
    model = rk.fuse(lively(Stem()))
    for n in (1, 5, 33):
        x = images(n, 20)
        with torch.no_grad():
            first = model(x)
            assert all(torch.equal(model(x), first) for _ in range(3))


@pytest.mark.parametrize(("n", "c", "k"), [(1, 2048, 1000), (7, 33, 5), (450, 70, 41), (3, 1, 1)])
def test_linear(n: int, c: int, k: int) -> None:
    torch.manual_seed(3)
    w, bias, x = torch.randn(k, c), torch.randn(k), torch.randn(n, c)
    want = x.double() @ w.double().t()
    OPS.keep_packed_filter(w.data_ptr())
    try:
        for _ in range(3):
            for b in (bias, None):
                y = OPS.linear_inference(x, w, b)
                exact = want if b is None else want + b
                torch.testing.assert_close(y, exact.float(), rtol=1e-5, atol=2e-6 * c**0.5)
    finally:
        OPS.drop_packed_filter(w.data_ptr())


def test_linear_leaves_others_to_torch() -> None:
    w, x = torch.randn(5, 8), torch.randn(3, 8)
    assert OPS.linear_inference(x, w, None) is None  # not kept packed
    OPS.keep_packed_filter(w.data_ptr())
    try:
        assert OPS.linear_inference(x, w, None) is not None
        for other in (x.double(), x[:, :7], x.t().contiguous().t(), x[None], x[:0]):
            assert OPS.linear_inference(other, w, None) is None
        assert OPS.linear_inference(x, w, torch.randn(4)) is None
    finally:
        OPS.drop_packed_filter(w.data_ptr())


def test_wrong_arguments_are_refused() -> None:
    vectors = [torch.ones(4) for _ in range(4)]
    layer = [torch.randn(4, 3, 1, 1), *vectors]
    geometry = [1, 1, 0, 0, 1, 1, 1]
    pool = [3, 3, 2, 2, 1, 1, 1, 1, 0]
    keep = OPS.keep_chain
    for args, why in (
        ((layer[:4], geometry, [1e-5], [1, 0], []), "5 tensors"),
        ((layer, geometry[:6], [1e-5], [1, 0], []), "7 numbers"),
        ((layer, geometry, [1e-5], [2, 0], []), "5 tensors"),
        ((layer, geometry, [1e-5], [1, 3], []), "expected layers"),
        ((layer, geometry, [1e-5], [1, 0], pool[:8]), "pool: expected"),
        ((layer, geometry, [1e-5], [1, 0], [16, 16, *pool[2:]]), "255 taps"),
        ((layer, geometry, [1e-5], [1, 0], [0, *pool[1:]]), "positive"),
        ((layer * 2, geometry * 2, [1e-5] * 2, [1, 2], pool), "projection"),
    ):
        with pytest.raises(RuntimeError, match=why):
            keep(*args, 0, 0.0, [])
    x = images(1, 6)
    chain = keep(layer, geometry, [1e-5], [1, 0], pool, 0, 0.0, [])
    assert OPS.chain_inference(chain, x, None).shape == (1, 4, 3, 3)
    with pytest.raises(RuntimeError, match="nothing adds"):
        OPS.chain_inference(chain, x, x)
    OPS.drop_chain(chain)
    OPS.drop_chain(chain)
    with pytest.raises(RuntimeError, match="no such chain"):
        OPS.chain_inference(chain, x, None)
