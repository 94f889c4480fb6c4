"""The candidates of a whole-step measurement: one network, one batch, run in different ways."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import library
from ..training.network import create_network
from . import engines
from .timing import captured

# Fused networks by provider: the backend of their ops, None for the default one.
FUSED = {"fused": None, "fused_triton": "triton"}
EAGER = ("eager", "eager_channels_last")
# Without CUDA graphs of its own: `Case.graph` captures every provider alike.
COMPILED = {"compile": "default", "compile_max_autotune": "max-autotune-no-cudagraphs"}
# For inference alone.
FREEZING = "compile_freezing"
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: a training step or inference; fp16 and bf16 run under autocast.

    graph: a replay of a CUDA graph is timed.
    """

    model: str
    batch: int
    size: int
    dtype: str = "fp32"
    train: bool = True
    device: str = "cpu"
    classes: int = 1000
    channels: int = 3
    seed: int = 0
    graph: bool = False

    def inputs(self, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Seeded images [B, C, size, size] fp32 and labels [B] int64."""
        draw = torch.Generator().manual_seed(self.seed)
        shape = (batch or self.batch, self.channels, self.size, self.size)
        labels = torch.randint(self.classes, shape[:1], generator=draw)
        return torch.randn(shape, generator=draw).to(self.device), labels.to(self.device)

    def arithmetic(self) -> contextlib.AbstractContextManager[None]:
        """Autocast, and how fp32 is multiplied. For fp32 on a CPU there is nothing to set, and no
        provider's time has the setting of it: in front of cold caches, a hundredth of an image's.
        """
        if self.dtype == "fp32" and self.device == "cpu":
            return contextlib.nullcontext()
        return self._arithmetic()

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        kind, low = torch.device(self.device).type, DTYPES[self.dtype]
        with precision(self.dtype), torch.autocast(kind, low, enabled=low != torch.float32):
            yield


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """How a GPU multiplies fp32 inside: rounded to tf32 for "tf32", else exactly.

    PyTorch's own default rounds in convolutions and does not in matrix products.
    """
    # torch.export asks for cuDNN's one flag, and refuses settings that differ from it.
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.fp32_precision
    cudnn.allow_tf32, matmul.fp32_precision = dtype == "tf32", "tf32" if dtype == "tf32" else "ieee"
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.fp32_precision = before


@contextlib.contextmanager
def on_backend(name: str | None) -> Iterator[None]:
    """Ops that start inside run on this backend; None changes nothing."""
    if name is None:
        yield
        return
    before = library.set_default_backend(name)
    try:
        yield
    finally:
        library.set_default_backend(before)


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
        model = create_model(case, fused=provider in FUSED)
        self._backend = FUSED.get(provider)
        if torch.device(case.device).type == "cuda":
            torch.backends.cudnn.benchmark = True  # stock PyTorch at its best
        self.images, self.labels = case.inputs()
        if provider not in ("eager", *engines.ENGINES):
            model = model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.module = model
        self.model = model
        if provider in COMPILED:
            self.model = torch.compile(model, mode=COMPILED[provider])
        if provider == FREEZING:
            self.model = torch.compile(model, options={"freezing": True})
        self._engine = None
        if provider in engines.ENGINES:
            self._engine = engines.prepare(provider, model, self.images)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def call(self) -> Callable[[], object]:
        """What is timed: `run`, or a replay of it."""
        return captured(self.run) if self.case.graph else self.run

    def run(self) -> None:
        """A training step (forward, loss, backward, SGD), or a forward without gradients."""
        if self._engine is not None:
            self._engine()
            return
        with on_backend(self._backend):
            if not self.case.train:
                with torch.inference_mode(), self.case.arithmetic():
                    self.model(self.images)
                return
            self.clear()
            with precision(self.case.dtype):  # for backward, which autocast must not see
                self.loss().backward()
            self.optimizer.step()

    def loss(self) -> Tensor:
        with self.case.arithmetic():
            return F.cross_entropy(self.model(self.images), self.labels)

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
