"""Whole networks on the emulated CUDA kernels against stock torch; nothing falls back.

Races are looked for in two small networks, and by the tests of the kernels.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from oracle import assert_close_to_oracle
from torch import Tensor

from benchmarks.digits_training import (
    MODES,
    beyond_allowed,
    digits,
    distances,
    fp32_precision,
    network,
    train,
    train_exactly,
    train_stock,
    worse_than_allowed,
)
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
        with emulator.active(seed=5, detect_races=False) as run:
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


@pytest.mark.parametrize("mode", MODES)
def test_training_follows_stock(mode, rng):
    """A CIFAR ResNet-8 of width 8 on digits: first gradients, and a loss that falls as stock's."""
    stock, batch, steps = network(), digits(rng), 6
    exact, exact_first = train_exactly(stock, batch, steps)
    theirs, their_first = train_stock(stock, batch, mode, steps)
    library.fallback_counts(reset=True)
    with emulator.active(detect_races=False), fp32_precision(mode):
        ours, our_first = train(fuse(copy.deepcopy(stock)), batch, mode, steps)
    assert library.fallback_counts() == {}
    assert worse_than_allowed(mode, our_first, their_first, exact_first) == []
    # The losses that follow, too, and they fall. Where roundings are small, a relu that turns at
    # one moves them far more than stock's distance: the next test compares gradients there.
    away, their_away = (max(map(abs, map(float.__sub__, x, exact))) for x in (ours, theirs))
    assert mode != "bf16" or away <= 2 * their_away + 1e-5
    assert ours[-1] < 0.85 * ours[0]


@pytest.mark.parametrize(
    "kernels, mode, steps", [("cpu", "fp32", 20), ("emulated", "fp32", 6), ("emulated", "tf32", 6)]
)
def test_gradients_at_the_weights_of_every_step(kernels, mode, steps, rng):
    """Curves drift apart where a relu turns, gradients of equal weights do not; and where one turns
    in a gradient alone, ours or stock's, another does in another step: the largest distances.
    """
    stock, batch = network(), digits(rng)
    fused = fuse(copy.deepcopy(stock))
    optimizer = torch.optim.SGD(fused.parameters(), lr=0.05, momentum=0.9)
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(steps):
        stock.load_state_dict(fused.state_dict())
        exact, theirs = train_exactly(stock, batch, 1)[1], train_stock(stock, batch, mode, 1)[1]
        fused.zero_grad()
        emulated = emulator.active(detect_races=False) if kernels == "emulated" else nullcontext()
        with emulated, fp32_precision(mode):
            F.cross_entropy(fused(batch[0]), batch[1]).backward()
        mine = {name: p.grad for name, p in fused.named_parameters()}
        found.append((distances(mine, exact), distances(theirs, exact)))
        optimizer.step()
    largest = (
        {name: max(d[name] for d in of) for name in exact} for of in zip(*found, strict=True)
    )
    assert beyond_allowed(mode, *largest) == []


def test_a_wrong_gradient_is_told_by_its_name():
    exact = {"weight": torch.ones(4), "bias": torch.ones(4)}
    theirs = {name: g * 1.01 for name, g in exact.items()}
    ours = {"weight": exact["weight"] * 1.05, "bias": exact["bias"]}
    [message] = worse_than_allowed("bf16", ours, theirs, exact)
    assert message == "weight: 5.00e-02, stock torch 1.00e-02"
