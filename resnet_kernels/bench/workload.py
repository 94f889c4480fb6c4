"""The candidates of a whole-step measurement: one network, one batch, run in different ways."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..training.network import create_network

PROVIDERS = ("fused", "eager", "eager_channels_last", "compile")
EAGER = ("eager", "eager_channels_last")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: a training step or inference; fp16 and bf16 run under autocast."""

    model: str
    batch: int
    size: int
    dtype: str = "fp32"
    train: bool = True
    device: str = "cpu"
    classes: int = 1000
    channels: int = 3
    seed: int = 0

    def inputs(self, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Seeded images [B, C, size, size] fp32 and labels [B] int64."""
        draw = torch.Generator().manual_seed(self.seed)
        shape = (batch or self.batch, self.channels, self.size, self.size)
        labels = torch.randint(self.classes, shape[:1], generator=draw)
        return torch.randn(shape, generator=draw).to(self.device), labels.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, DTYPES[self.dtype])


def create_model(case: Case, fused: bool) -> nn.Module:
    """The network, with weights that depend on the seed alone; UserError for an unknown name."""
    torch.manual_seed(case.seed)
    model = create_network(case.model, case.classes, case.channels, fused)
    return model.to(case.device).train(case.train)


class Workload:
    """One provider's model, input and, for training, optimizer; `run()` is the measured call."""

    def __init__(self, provider: str, case: Case) -> None:
        self.case = case
        self.model: Callable[..., Tensor]
        model = create_model(case, fused=provider == "fused")
        self.images, self.labels = case.inputs()
        if provider != "eager":
            model = model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.module = model
        self.model = torch.compile(model) if provider == "compile" else model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def run(self) -> None:
        """A training step (forward, loss, backward, SGD), or a forward without gradients."""
        if not self.case.train:
            with torch.inference_mode(), self.case.autocast():
                self.model(self.images)
            return
        self.clear()
        self.loss().backward()
        self.optimizer.step()

    def loss(self) -> Tensor:
        with self.case.autocast():
            return F.cross_entropy(self.model(self.images), self.labels)

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
