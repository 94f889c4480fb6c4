"""A small network, its data, and a few steps of training it in one precision or another.

Shared by benchmarks/emulated_training.py and the tests of whole models.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_kernels import nn as blocks
from resnet_kernels.models.resnet import ResNet
from resnet_kernels.reference import round_tf32

MODES = ("fp32", "tf32", "bf16")
Batch = tuple[Tensor, Tensor]
# Largest relative L2 distance of a first gradient from fp64's: this many times that of stock torch
# in the same mode, plus a floor. Under autocast and in tf32 the floor covers gradients of batch
# norms that are small differences of rounded terms.
ALLOWED = {"fp32": (2.0, 1e-5), "tf32": (2.0, 1e-3), "bf16": (2.0, 1e-2)}


class Distance(NamedTuple):
    """Of two tensors: the largest difference by the largest value, relative L2, cosine."""

    largest: float
    l2: float
    cosine: float

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Distance:
        a, b = a.double().flatten(), b.double().flatten()
        return cls(
            ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item(),
            ((a - b).norm() / b.norm().clamp(min=1e-12)).item(),
            F.cosine_similarity(a, b, dim=0).item(),
        )


def network(seed: int = 2) -> ResNet:
    """A stock CIFAR ResNet-8 of width 8 for images of one channel."""
    torch.manual_seed(seed)
    return ResNet(
        blocks.BasicBlock, (1, 1, 1), num_classes=10, in_channels=1, stem="cifar", width=8
    )


def digits(rng: torch.Generator, count: int = 16) -> Batch:
    """Scanned digits [count, 1, 16, 16] fp32 and their labels."""
    data = load_digits()
    pick = torch.randperm(len(data.images), generator=rng)[:count]
    images = torch.tensor(data.images, dtype=torch.float32)[pick, None] / 16
    return F.interpolate(images, scale_factor=2.0), torch.tensor(data.target)[pick]


class RoundedToTf32(TorchDispatchMode):
    """Rounds the operands of stock fp32 convolutions, forward and backward, as a GPU does."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operands = {
            torch.ops.aten.convolution.default: 2,  # x, w
            torch.ops.aten.convolution_backward.default: 3,  # dy, x, w
        }.get(func, 0)
        rounded = (round_tf32(t) for t in args[:operands])
        return func(*rounded, *args[operands:], **(kwargs or {}))


@contextlib.contextmanager
def fp32_precision(mode: str) -> Iterator[None]:
    """What convolutions of fp32 tensors may round to on the CUDA kernels."""
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    conv.fp32_precision = "tf32" if mode == "tf32" else "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


def train(
    model: nn.Module, batch: Batch, mode: str, steps: int
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps of SGD on one batch, and the gradients of the first by parameter.

    mode: "bf16" is autocast; "tf32" rounds where `fp32_precision` lets the kernels do so.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses: list[float] = []
    first: dict[str, Tensor] = {}
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
            loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        first = first or {n: p.grad.clone() for n, p in model.named_parameters()}  # type: ignore[union-attr]
        optimizer.step()
        losses.append(loss.item())
    return losses, first


def train_stock(
    model: nn.Module, batch: Batch, mode: str, steps: int
) -> tuple[list[float], dict[str, Tensor]]:
    """The same with a copy of a stock model, whose convolutions tf32 rounds as well."""
    rounding = RoundedToTf32() if mode == "tf32" else contextlib.nullcontext()
    with rounding:
        return train(copy.deepcopy(model), batch, mode, steps)


def train_exactly(
    model: nn.Module, batch: Batch, steps: int
) -> tuple[list[float], dict[str, Tensor]]:
    """The same in fp64."""
    return train(copy.deepcopy(model).double(), (batch[0].double(), batch[1]), "fp64", steps)


def distances(gradients: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Relative L2 distance of each parameter's gradient from fp64's."""
    return {name: Distance.of(gradients[name], want).l2 for name, want in exact.items()}


def beyond_allowed(mode: str, ours: dict[str, float], theirs: dict[str, float]) -> list[str]:
    """Parameters whose distance is larger than ALLOWED, with both distances."""
    factor, floor = ALLOWED[mode]
    return [
        f"{name}: {mine:.2e}, stock torch {theirs[name]:.2e}"
        for name, mine in ours.items()
        if not mine <= factor * theirs[name] + floor
    ]


def worse_than_allowed(
    mode: str, ours: dict[str, Tensor], theirs: dict[str, Tensor], exact: dict[str, Tensor]
) -> list[str]:
    """The same of gradients."""
    return beyond_allowed(mode, distances(ours, exact), distances(theirs, exact))
