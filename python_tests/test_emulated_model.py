"""A ResNet's training step on each backend against the same on the CPU kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from backends import device, using
from torch import nn

from resnet_kernels import fuse
from resnet_kernels import nn as blocks
from resnet_kernels.models.resnet import ResNet
from resnet_kernels.ops import library


def step(model: nn.Module, x: torch.Tensor, backend: str) -> list[torch.Tensor]:
    """Loss, gradients and buffers of one training step on a copy of the model."""
    with using(backend):
        model = copy.deepcopy(model).train().to(device())
        loss = model(x.to(device())).square().mean()
        loss.backward()
    results = [loss.detach(), *(p.grad for p in model.parameters()), *model.buffers()]
    return [result.cpu() for result in results]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("block", [blocks.BasicBlock, blocks.Bottleneck])
def test_step_of_a_fused_model(block, layout, each_backend, rng):
    """In fp64, where the paths may differ by rounding alone; every convolution is ours."""
    torch.manual_seed(0)
    model = ResNet(block, (1, 1), num_classes=3, stem="cifar", width=4).double()
    model = model.to(memory_format=layout)
    fuse(model)
    x = torch.randn(2, 3, 8, 8, generator=rng, dtype=torch.float64)
    x = x.contiguous(memory_format=layout)
    library.fallback_counts(reset=True)
    ours = step(model, x, each_backend)
    torchs = library.DECLARED & set(library.fallback_counts())
    assert bool(torchs) == (each_backend == "cpu"), torchs
    for a, b in zip(ours, step(model, x, "cpu"), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-9, atol=1e-11)
