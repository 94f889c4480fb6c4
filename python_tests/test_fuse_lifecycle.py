"""What stays and what may change after fuse(): objects, names, modes, hooks, copies, children, classes."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from model_checks import assert_near, assert_same, assert_same_gradients, primitives, twins
from resnet_kernels import explain, fuse, models, unfuse
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from user_modules import C, KuangliuBlock, Pair, TrainingSwitch, conv, image


class Net(nn.Module):
    """A stem of plain layers and two blocks, the smallest thing with everything in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = conv(), nn.BatchNorm2d(C), nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(KuangliuBlock(), KuangliuBlock(2 * C, 2 * C, 1))
        self.fc = nn.Linear(2 * C, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return twins(Net())


def count(model: nn.Module) -> int:
    """Number of our primitives one evaluation runs."""
    mode = model.training
    with primitives() as ran, torch.no_grad():
        model.eval()(image())
    model.train(mode)
    return len(ran)


def test_objects_and_names_stay() -> None:
    model = Net()
    modules, parameters = list(model.named_modules()), list(model.named_parameters())
    keys = list(model.state_dict())
    assert fuse(model) is model
    assert [(n, id(m)) for n, m in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert [(n, id(p)) for n, p in model.named_parameters()] == [(n, id(p)) for n, p in parameters]
    assert list(model.state_dict()) == keys
    assert isinstance(model, Net) and isinstance(model.blocks[0], KuangliuBlock)
    assert type(model.blocks) is nn.Sequential
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_fusing_again_changes_nothing(pair: Any) -> None:
    stock, fused = pair
    classes = [type(m) for m in fused.modules()]
    fuse(fuse(fused))
    assert [type(m) for m in fused.modules()] == classes
    assert_same(stock, fused, image())


def test_modes_switch_at_any_time(pair: Any) -> None:
    assert_same(*pair, image(), modes=(True, False, True, False))
    assert count(pair[1]) > 0


def test_running_stats_after_many_steps(pair: Any) -> None:
    assert_same(*pair, image(), steps=20, modes=(True,))


def test_frozen_batch_norm_in_training(pair: Any) -> None:
    def freeze(model: nn.Module) -> None:
        model.blocks[0].bn1.eval()
        model.blocks[1].bn2.eval().requires_grad_(False)

    before = copy.deepcopy(pair[1].state_dict())
    assert_same(*pair, image(), modes=(True,), before=freeze)
    after = pair[1].state_dict()
    assert torch.equal(after["blocks.0.bn1.running_mean"], before["blocks.0.bn1.running_mean"])
    moved = "blocks.0.bn2.running_mean"
    assert not torch.equal(after[moved], before[moved])


def test_frozen_parameters_get_no_gradient(pair: Any) -> None:
    def freeze(model: nn.Module) -> None:
        model.blocks[0].requires_grad_(False)
        model.conv1.requires_grad_(False)

    assert_same(*pair, image(), before=freeze)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_stay_fused(pair: Any, how: str) -> None:
    stock, fused = pair
    fused(image())
    stock(image())
    if how == "deepcopy":
        copied = copy.deepcopy(fused)
    elif how == "pickle":
        copied = pickle.loads(pickle.dumps(fused))
    else:
        buffer = io.BytesIO()
        torch.save(fused, buffer)
        buffer.seek(0)
        copied = torch.load(buffer, weights_only=False)
    assert [type(m) for m in copied.modules()] == [type(m) for m in fused.modules()]
    assert copied.conv1.weight is not fused.conv1.weight
    assert count(copied) == count(fused) > 0
    assert_same(stock, copied, image())


def test_pickle_names_the_original_class(pair: Any) -> None:
    """A pickle of a fused module does not name classes that exist in this process alone."""
    assert b"FusedNet" not in pickle.dumps(pair[1])


def test_unfuse_restores(pair: Any) -> None:
    stock, fused = pair
    fused(image())
    stock(image())
    assert unfuse(fused) is fused
    assert [type(m) for m in fused.modules()] == [type(m) for m in stock.modules()]
    assert set(vars(fused)) == set(vars(stock))
    assert count(fused) == 0
    assert_same(stock, fused, image())
    assert_same(stock, fuse(fused), image())
    assert count(fused) > 0


def test_state_dicts_load_both_ways(pair: Any) -> None:
    stock, fused = pair
    torch.manual_seed(1)
    other = Net().double()
    fused.load_state_dict(other.state_dict())
    assert_same(other, fused, image())
    stock.load_state_dict(fused.state_dict())
    assert_same(stock, fused, image())


def test_optimizer_made_before_fuse_goes_on() -> None:
    torch.manual_seed(0)
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = Net().double()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
        for step in range(6):
            if fused and step == 3:
                fuse(model)
            optimizer.zero_grad()
            model(image()).square().mean().backward()
            optimizer.step()
        results.append(model)
    for (name, p), q in zip(results[0].named_parameters(), results[1].parameters(), strict=True):
        assert_near(q.detach(), p.detach(), name)


def test_hook_added_later_sees_its_module(pair: Any) -> None:
    stock, fused = pair
    fused(image())
    stock(image())
    for path in ("blocks.0.bn1", "blocks.1.conv2", "relu", "blocks.0.shortcut", "blocks.1"):
        seen: dict[str, list[torch.Tensor]] = {"stock": [], "fused": []}
        handles = [
            model.get_submodule(path).register_forward_hook(
                lambda m, args, out, log=seen[name]: log.append(out.detach().clone())
            )
            for name, model in (("stock", stock), ("fused", fused))
        ]
        assert_same(stock, fused, image())
        assert len(seen["fused"]) == len(seen["stock"]) > 0
        for a, b in zip(seen["fused"], seen["stock"], strict=True):
            assert_near(a, b, path)
        for handle in handles:
            handle.remove()


def test_hook_costs_only_its_own_chain_and_goes_away(pair: Any) -> None:
    _, fused = pair
    before = count(fused)
    handle = fused.blocks[0].bn1.register_forward_hook(lambda *args: None)
    assert 0 < count(fused)
    with primitives() as ran, torch.no_grad():
        fused.eval().blocks[1](image(4, 2 * C))
    assert ran
    hooked = {row.layers: row for row in explain(fused).rows}
    assert hooked[("blocks.0.bn1",)].reason == "has hooks"
    handle.remove()
    assert count(fused) == before


def test_hooks_that_change_values(pair: Any) -> None:
    for model in pair:
        model.blocks[0].bn1.register_forward_hook(lambda m, args, out: out * 2)
        model.blocks[1].conv1.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
        model.blocks[1].conv2.register_full_backward_hook(lambda m, gin, gout: (gin[0] * 3,))
    assert_same(*pair, image())


def test_global_hooks_see_every_module(pair: Any) -> None:
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *args: called.append(m))
    try:
        pair[1](image())
    finally:
        handle.remove()
    assert pair[1].blocks[0].bn1 in called


@pytest.mark.parametrize("replaced", ["conv", "act", "norm", "subclass", "none", "block"])
def test_children_replaced_later(pair: Any, replaced: str) -> None:
    class MyConv(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    def change(model: nn.Module) -> None:
        torch.manual_seed(2)
        block = model.blocks[0]
        if replaced == "conv":
            block.conv2 = conv(2 * C, 2 * C, 5, bias=True).double()
        elif replaced == "act":
            model.relu = nn.Hardswish()
        elif replaced == "norm":
            block.bn1 = nn.GroupNorm(2, 2 * C).double()
        elif replaced == "subclass":
            block.conv1 = MyConv(C, 2 * C, 3, 2, 1, bias=False).double()
        elif replaced == "none":
            model.blocks[1].shortcut = nn.Identity()
        else:
            model.blocks[1] = nn.Conv2d(2 * C, 2 * C, 1).double()

    for model in pair:
        model(image())
        change(model)
    assert_same(*pair, image())


def test_settings_changed_later(pair: Any) -> None:
    for model in pair:
        model(image())
        model.blocks[1].conv1.padding, model.blocks[1].conv1.dilation = (2, 2), (2, 2)
        model.blocks[0].bn1.momentum = None
        model.blocks[0].bn2.eps = 0.1
        model.relu.inplace = False
        model.blocks[1].bn1.track_running_stats = False
    assert_same(*pair, image(), steps=2)


class Switch(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.second = False
        self.extra: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if self.second:
            x = self.relu(self.bn2(self.conv2(x)))
        return x if self.extra is None else self.extra(x)


def test_attributes_set_later() -> None:
    stock, fused = twins(Switch())
    assert_same(stock, fused, image())
    for value in (True, False, True):
        stock.second = fused.second = value
        assert_same(stock, fused, image())
    for model in (stock, fused):
        model.extra = nn.BatchNorm2d(C).double()
    assert_same(stock, fused, image())
    for model in (stock, fused):
        model.extra = None
    assert_same(stock, fused, image())


def test_class_and_instance_forward_replaced_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stock, fused = twins(KuangliuBlock())
    assert_same(stock, fused, image())
    monkeypatch.setattr(KuangliuBlock, "forward", lambda self, x: self.bn1(self.conv1(x)) * 2)
    assert_same(stock, fused, image())
    fused.forward = lambda x: x + 1
    assert torch.equal(fused(image()), image() + 1)
    assert explain(fused).rows[0].reason == "its forward was replaced on the instance"


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm", "parametrization"])
def test_reparametrised_convolution(norm: str) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        model = Net().double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function = {
                "weight_norm": weight_norm,
                "spectral_norm": spectral_norm,
                "parametrization": parametrizations.weight_norm,
            }[norm]
            function(model.blocks[0].conv1)
        return model

    assert_same(make(), fuse(make()), image())
    late = fuse(Net().double())
    late.load_state_dict(twins(Net())[0].state_dict())
    parametrizations.weight_norm(late.blocks[0].conv1)
    late(image()).sum().backward()
    assert late.blocks[0].conv1.parametrizations.weight.original0.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_model_runs(dtype: torch.dtype) -> None:
    """The whole model in a low precision: error against fp64 no more than twice the stock model's."""
    torch.manual_seed(0)
    model = Net().eval()
    oracle = copy.deepcopy(model).double()(image())
    x = image().to(dtype)
    stock = model.to(dtype)
    expected = stock(x)
    actual = fuse(copy.deepcopy(stock))(x)
    assert actual.dtype == dtype
    limit = 2 * (expected - oracle).abs().max() + 2 * torch.finfo(dtype).eps * oracle.abs().max()
    assert (actual - oracle).abs().max() <= limit


def test_autocast_gives_the_dtypes_of_stock(pair: Any) -> None:
    stock, fused = (model.float() for model in pair)
    x = image().float()
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = stock(x), fused(x)
    assert actual.dtype == expected.dtype
    oracle = copy.deepcopy(stock).double()(image())
    limit = 2 * (expected - oracle).abs().max() + 2**-7 * oracle.abs().max()
    assert (actual - oracle).abs().max() <= limit
    actual.float().sum().backward()
    assert {p.grad.dtype for p in fused.parameters()} == {torch.float32}


def test_mismatched_dtype_raises_as_torch(pair: Any) -> None:
    stock, fused = pair
    for model in (stock, fused):
        with pytest.raises(RuntimeError):
            model(image().float())


def test_padding_modes_run_unfused() -> None:
    class Reflect(Pair):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = conv(padding_mode="reflect")
            self.conv2 = nn.Conv2d(C, C, 4, padding="same", bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))

    stock, fused = twins(Reflect())
    assert_same(stock, fused, image())
    rows = {row.layers[0]: row for row in explain(fused).rows}
    assert "padding_mode 'reflect'" in rows["conv1"].reason


def test_functorch_and_forward_mode_run_unfused(pair: Any) -> None:
    stock, fused = (model.eval() for model in pair)
    x = image()
    per_sample = [torch.func.vmap(lambda v, m=m: m(v[None])[0])(x) for m in (stock, fused)]
    assert_near(per_sample[1], per_sample[0], "vmap")
    tangents = [torch.func.jvp(m, (x,), (torch.ones_like(x),))[1] for m in (stock, fused)]
    assert_near(tangents[1], tangents[0], "jvp")
    assert count(fused) > 0


def test_training_switch_trained_in_both_modes() -> None:
    assert_same(*twins(TrainingSwitch()), image(), modes=(True, False, True), steps=2)


def test_gradient_checkpointing(pair: Any) -> None:
    """torch.utils.checkpoint recomputes a fused block; running stats then move twice, as in stock."""
    for model in pair:
        model.zero_grad()
        x = image().requires_grad_()
        out = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
        out.square().sum().backward()
    assert_same_gradients(*pair)


def test_models_argument_of_fused_is_that_of_fuse() -> None:
    torch.manual_seed(0)
    plain = models.resnet8(width=8, in_channels=1, fused=False)
    torch.manual_seed(0)
    fused = models.resnet8(width=8, in_channels=1)
    assert [type(m) for m in fuse(plain).modules()] == [type(m) for m in fused.modules()]
