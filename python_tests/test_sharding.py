"""Fused models under FSDP2 in two processes, and under activation checkpointing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from resnet_kernels import fuse, models
from resnet_kernels import nn as blocks


def _model() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet8(width=8, fused=False).double()


def _images() -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 12, 12, generator=draw, dtype=torch.float64)


def _step(model: nn.Module, images: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def _fsdp_rank(rank: int, file: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    model = fuse(_model())
    with pytest.raises(NotImplementedError, match="non-contiguous"):  # what fuse() made of weights
        fully_shard(copy.deepcopy(model), mesh=mesh)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    for module in model.modules():
        if isinstance(module, blocks.BasicBlock):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    _step(model, _images())  # both have the same pictures: batch statistics are those of one
    whole = {n: p.full_tensor() for n, p in model.named_parameters()}
    if rank == 0:
        torch.save({**whole, **dict(model.named_buffers())}, out)
    dist.destroy_process_group()


def test_fsdp_trains_as_one_process(tmp_path: Path) -> None:
    out = str(tmp_path / "rank0.pt")
    mp.spawn(_fsdp_rank, (str(tmp_path / "store"), out), nprocs=2)
    got = torch.load(out)
    model = _model()
    _step(model, _images())
    expected = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value.detach(), rtol=1e-8, atol=1e-9, msg=name)


class _Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


@pytest.mark.parametrize("fused", [False, True])
def test_activation_checkpointing(fused: bool) -> None:
    """Gradients are exact; the running statistics move twice a step, in stock too."""
    plain = _model()
    model = copy.deepcopy(plain)
    if fused:
        fuse(model)
    for name in ("layer1", "layer2", "layer3"):
        setattr(model, name, _Checkpointed(getattr(model, name)))
    for network in (plain, model):
        network(_images()).square().mean().backward()
    for expected, actual in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-8, atol=1e-10)
    assert int(model.bn1.num_batches_tracked) == 1
    assert int(model.layer1.inner[0].bn1.num_batches_tracked) == 2
