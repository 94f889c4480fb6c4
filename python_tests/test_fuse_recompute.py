"""fuse(model, recompute="stage"): the same results with less kept for backward."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torchvision
from model_checks import assert_same, twins
from resnet_kernels import explain, fuse, models, unfuse
from torch import nn
from user_modules import image


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


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    stock, fused = twins(torchvision.models.resnet18(num_classes=4))
    return stock, fuse(fused, recompute="stage")


def test_same_as_stock(pair: Any) -> None:
    assert stages(pair[1]) == ["residual_stage (cpu)"] * 4
    assert_same(*pair, image(64, 3)[:2], steps=2)


def test_keeps_less() -> None:
    torch.manual_seed(0)
    model = models.cifar_resnet50(width=16)
    x = image(16, 3).float()
    default = kept_bytes(model, x)
    assert kept_bytes(fuse(model, recompute="stage"), x) < 0.85 * default
    assert kept_bytes(fuse(model), x) == default


def test_hook_on_a_block_opens_its_stage(pair: Any) -> None:
    seen: list[torch.Tensor] = []
    for model in pair:
        model.layer2[0].register_forward_hook(lambda m, args, out: seen.append(out.detach()))
        model.layer3[1].bn1.register_forward_hook(lambda m, args, out: out * 2)
    assert_same(*pair, image(64, 3)[:2], modes=(True,))
    assert len(seen) == 2


def test_copies_and_restores(pair: Any) -> None:
    stock, fused = pair
    for copied in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert stages(copied) == stages(fused)
    assert not stages(fuse(copy.deepcopy(fused)))
    assert type(fuse(copy.deepcopy(fused)).layer1) is nn.Sequential
    assert [type(m) for m in unfuse(fused).modules()] == [type(m) for m in stock.modules()]
    assert all(set(vars(a)) == set(vars(b)) for a, b in zip(fused.modules(), stock.modules()))


def test_compiles(pair: Any) -> None:
    stock, fused = pair
    torch._dynamo.reset()
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    x = image(32, 3)[:2]
    assert torch.allclose(compiled(x), stock(x), rtol=1e-9)
