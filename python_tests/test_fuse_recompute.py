"""fuse(model, recompute="stage"): the same results with less kept for backward."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from model_checks import assert_same, twins
from torch import nn
from user_modules import C, conv, image

from resnet_kernels import explain, fuse, models, unfuse
from resnet_kernels import nn as blocks


def stages(model: nn.Module) -> list[str]:
    return [row.path for row in explain(model).rows if "stage" in row.path]


def kept_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes of the distinct storages autograd keeps for backward, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    held = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held.append(tensor)
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(sizes.values())


def _leaky() -> nn.Module:
    model = models.cifar_resnet18(width=8, num_classes=4, fused=False)
    model.relu = nn.LeakyReLU(0.2, inplace=True)
    return model


class Trunk(nn.Module):
    """A stem in front of a row of blocks; `between` runs after them with (image, stem, blocks)."""

    def __init__(self, between: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        self.conv, self.bn, self.act = conv(3, C), nn.BatchNorm2d(C), nn.ReLU()
        self.blocks = nn.Sequential(blocks.BasicBlock(C, C), blocks.BasicBlock(C, C))
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.bn(self.conv(x)))
        out = self.blocks(h)
        return out if self.between is None else self.between(x, h, out)


def _flat() -> nn.Module:
    row = [blocks.BasicBlock(C, C, fused=False) for _ in range(2)]
    return nn.Sequential(conv(3, C), nn.BatchNorm2d(C), nn.SiLU(), nn.MaxPool2d(2), *row)


def _direct() -> nn.Module:
    first = nn.Sequential(conv(3, C, bias=True), nn.BatchNorm2d(C, momentum=None), nn.GELU())
    return nn.Sequential(first, blocks.BasicBlock(C, C, fused=False), nn.Conv2d(C, 2, 1))


# Model and the number of stages that explain() shows.
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "imagenet": (lambda: torchvision.models.resnet18(num_classes=4), 4),
    "cifar": (lambda: models.cifar_resnet18(width=8, num_classes=4, fused=False), 4),
    "leaky_stem": (_leaky, 4),
    "one_block": (lambda: models.resnet8(fused=False), 1),
    "sequential": (_flat, 1),
    "block_alone": (_direct, 1),
    "trunk": (Trunk, 1),
}


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module]:
    return make_pair("imagenet")


def make_pair(name: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    stock, fused = twins(MODELS[name][0]())
    return stock, fuse(fused, recompute="stage")


@pytest.mark.parametrize("name", list(MODELS))
def test_same_as_stock(name: str) -> None:
    stock, fused = make_pair(name)
    assert stages(fused) == ["residual_stage (cpu)"] * MODELS[name][1]
    size = 64 if name == "imagenet" else 16
    assert_same(stock, fused, image(size, 3)[:2], steps=3, modes=(True, False, True))


def test_stem_runs_in_the_first_stage() -> None:
    for name, pool in (("imagenet", ["maxpool"]), ("cifar", [])):
        rows = {row.layers[0]: row for row in explain(make_pair(name)[1]).rows}
        front = ("conv1", "bn1", "relu", *pool, "layer1.0.conv1")
        assert rows["conv1"].layers[: len(front)] == front


def test_keeps_less() -> None:
    torch.manual_seed(0)
    model = models.cifar_resnet18(width=16)
    x = image(16, 3).float()
    default = kept_bytes(model, x)
    staged = kept_bytes(fuse(model, recompute="stage"), x)
    stock = kept_bytes(unfuse(model), x)
    assert staged < 0.67 * stock
    assert kept_bytes(fuse(model), x) == default > staged


@pytest.mark.parametrize("alone", [True, False], ids=["stem_used_again", "image_used_again"])
def test_stem_whose_output_is_used_again_stays_alone(alone: bool) -> None:
    torch.manual_seed(0)
    between = (lambda x, h, out: out + h) if alone else (lambda x, h, out: out + x.mean())
    stock, fused = twins(Trunk(between))
    fuse(fused, recompute="stage")
    assert (("conv", "bn", "act") in [row.layers for row in explain(fused).rows]) == alone
    assert_same(stock, fused, image(8, 3), steps=2)


class Overwrites(Trunk):
    """Writes to its input between stem and blocks: the stem may not run later."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.bn(self.conv(x.detach())))
        x.mul_(2)
        return self.blocks(h) + x.mean()


def test_input_overwritten_between_stem_and_blocks() -> None:
    torch.manual_seed(0)
    model = Overwrites()
    model.conv.requires_grad_(False)
    stock, fused = twins(model)
    fuse(fused, recompute="stage")
    assert ("conv", "bn", "act") in [row.layers for row in explain(fused).rows]
    assert_same(stock, fused, image(8, 3))


@pytest.mark.parametrize("path", ["layer2.0", "bn1", "relu", "maxpool", "layer1", "layer1.1.bn2"])
def test_hook_opens_a_stage(path: str, pair: Any) -> None:
    seen: list[torch.Tensor] = []
    handles = []
    for model in pair:
        module = model.get_submodule(path)
        handles.append(
            module.register_forward_hook(lambda m, args, out: seen.append(out) or out * 2)
        )
    assert_same(*pair, image(64, 3)[:2], modes=(True,))
    assert len(seen) == 2
    for handle in handles:
        handle.remove()
    assert stages(pair[1]) == ["residual_stage (cpu)"] * 4


def test_what_an_op_cannot_serve_runs_by_its_layers(pair: Any) -> None:
    stock, fused = pair
    x, direction = image(64, 3)[:2].requires_grad_(), image(64, 3)[1:]
    for model in pair:
        model.eval()
    expected, actual = (torch.func.jvp(m, (x,), (direction,)) for m in (stock, fused))
    for a, b in zip(actual, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


def test_copies_and_restores(pair: Any) -> None:
    stock, fused = pair
    for copied in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert stages(copied) == stages(fused)
    assert not stages(fuse(copy.deepcopy(fused)))
    assert type(fuse(copy.deepcopy(fused)).layer1) is nn.Sequential
    assert [type(m) for m in unfuse(fused).modules()] == [type(m) for m in stock.modules()]
    assert all(
        set(vars(a)) == set(vars(b)) for a, b in zip(fused.modules(), stock.modules(), strict=True)
    )


@pytest.mark.parametrize("name", ["imagenet", "cifar"])
def test_compiles(name: str) -> None:
    stock, fused = make_pair(name)
    torch._dynamo.reset()
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    x = image(32, 3)[:2]
    assert torch.allclose(compiled(x), stock(x), rtol=1e-9)


def test_autocast(pair: Any) -> None:
    """The stage and its blocks one by one give the same bits in bf16."""
    fused = pair[1].float()
    x = image(64, 3)[:2].float()
    results = []
    for model in (fused, fuse(copy.deepcopy(fused))):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        out.float().square().sum().backward()
        results.append([out, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
