"""Whole networks on the emulated CUDA kernels against stock torch; nothing falls back."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from oracle import assert_close_to_oracle
from sklearn.datasets import load_digits
from torch import Tensor, nn

from resnet_kernels import emulator, fuse
from resnet_kernels import nn as blocks
from resnet_kernels.models import cifar_resnet18, resnet50
from resnet_kernels.models.resnet import ResNet
from resnet_kernels.ops import library

NETWORKS = {"cifar_resnet18": (cifar_resnet18, 32), "resnet50": (resnet50, 64)}


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """A plain-torch fallback is an error, and fp32 is fp32."""
    monkeypatch.setenv("RNK_STRICT", "1")
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


CASES = [("cifar_resnet18", True), ("cifar_resnet18", False), ("resnet50", False)]


@pytest.mark.parametrize(("name", "training"), CASES)
def test_forward(name, training, rng):
    """tf32: logits, and in training the running statistics, against stock torch in fp64."""
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    fused, exact, ours, oracle = forward(name, training, rng)
    # tf32 rounds operands by 2^-12 of their size at most; some fifty layers of it add up at random.
    assert distance(ours, oracle) < 2**-12 * 50**0.5 * 4
    for (key, a), b in zip(fused.named_buffers(), exact.buffers(), strict=True):
        assert distance(a, b) < 2**-12 * 50**0.5 * 4, key


def test_resnet50_in_training(rng, repro):
    """fp32: batch norms over eight values make more of a rounding than tf32 leaves room for."""
    fused, exact, ours, oracle = forward("resnet50", True, rng)
    torch.manual_seed(1)
    stock = resnet50(num_classes=10).train()
    with torch.no_grad():
        theirs = stock(torch.randn(2, 3, 64, 64, generator=rng.manual_seed(rng.initial_seed())))
    assert_close_to_oracle(ours, oracle, theirs, 4608, name="logits", repro=repro)
    for (key, a), b in zip(fused.named_buffers(), exact.buffers(), strict=True):
        assert distance(a, b) < 1e-4, key


def forward(name: str, training: bool, rng: torch.Generator) -> tuple:
    """The fused fp32 and the stock fp64 network, and their outputs."""
    torch.manual_seed(1)
    build, size = NETWORKS[name]
    exact = build(num_classes=10).train(training)
    fused = fuse(copy.deepcopy(exact))
    exact = exact.double()
    x = torch.randn(2, 3, size, size, generator=rng)
    with torch.no_grad():
        oracle = exact(x.double())
        library.fallback_counts(reset=True)
        with emulator.active(seed=5) as run:
            ours = fused(x)
    assert library.fallback_counts() == {}
    assert any("5igemmI" in kernel for kernel in run.kernels)
    assert not any("conv_generic" in kernel for kernel in run.kernels)
    return fused, exact, ours, oracle


def distance(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()


def test_fp32_forward(rng, repro):
    """Without rounding to tf32: the error rule for a whole network."""
    torch.manual_seed(1)
    stock = ResNet(blocks.Bottleneck, (1, 1), num_classes=10, stem="cifar", width=16)
    x = torch.randn(2, 3, 16, 16, generator=rng)
    fused, exact = fuse(copy.deepcopy(stock)), copy.deepcopy(stock).double()
    with torch.no_grad():
        theirs, oracle = stock(x), exact(x.double())
        with emulator.active():
            ours = fused(x)
    assert_close_to_oracle(ours, oracle, theirs, 9 * 576, name="logits", repro=repro)


def test_bf16_forward(rng):
    """Tensor cores under autocast: as near to fp32 as stock torch under autocast is."""
    torch.manual_seed(1)
    stock = cifar_resnet18(num_classes=10).train()
    x = torch.randn(2, 3, 32, 32, generator=rng)
    fused, exact = fuse(copy.deepcopy(stock)), copy.deepcopy(stock)
    with torch.no_grad():
        want = exact(x)
        with torch.autocast("cpu", torch.bfloat16):
            theirs = stock(x)
            with emulator.active():
                ours = fused(x)
    scale = want.norm()
    assert (ours.float() - want).norm() / scale <= 2 * (theirs.float() - want).norm() / scale + 0.01


def digits(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sixteen digits of 16 x 16 pixels."""
    data = load_digits()
    pick = torch.randperm(len(data.images), generator=rng)[:16]
    images = torch.tensor(data.images, dtype=torch.float32)[pick, None] / 16
    return F.interpolate(images, scale_factor=2.0), torch.tensor(data.target)[pick]


def train(model: nn.Module, batch: tuple[Tensor, Tensor], autocast: bool) -> tuple:
    """Losses of some steps, and the gradients of the first."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses, first = [], {}
    for _ in range(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        first = first or {n: p.grad.clone() for n, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return losses, first


def gradients(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Of the first step in fp64."""
    model = copy.deepcopy(model).double()
    F.cross_entropy(model(batch[0].double()), batch[1]).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("mode", ["fp32", "tf32", "bf16"])
def test_training_follows_stock(mode, rng):
    """A CIFAR ResNet-8 of width 8 on digits: first gradients, and a loss that falls as stock's."""
    torch.backends.cudnn.conv.fp32_precision = "tf32" if mode == "tf32" else "ieee"
    torch.manual_seed(2)
    stock = ResNet(
        blocks.BasicBlock, (1, 1, 1), num_classes=10, in_channels=1, stem="cifar", width=8
    )
    fused, batch = fuse(copy.deepcopy(stock)), digits(rng)
    exact = gradients(stock, batch)
    # What stock torch on the CPU has of these: fp32, and bf16 autocast, which rounds eight times
    # as coarsely as tf32.
    theirs, their_first = train(stock, batch, mode != "fp32")
    library.fallback_counts(reset=True)
    with emulator.active():
        ours, our_first = train(fused, batch, mode == "bf16")
    assert library.fallback_counts() == {}
    allowed = {"fp32": (2.0, 1e-5), "tf32": (0.5, 1e-3), "bf16": (2.0, 1e-2)}[mode]
    for key, want in exact.items():
        limit = allowed[0] * distance(their_first[key], want) + allowed[1]
        assert distance(our_first[key], want) < limit, key
    assert abs(ours[0] - theirs[0]) < 0.02 * theirs[0]
    assert theirs[-1] < 0.85 * theirs[0]
    assert ours[-1] < 0.85 * ours[0]
