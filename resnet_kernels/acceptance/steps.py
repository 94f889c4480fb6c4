"""Whole networks: a training step against stock torch, and a training run on real pictures."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from ..bench import gate
from ..bench.workload import Case, create_model, precision
from ..fusion import fuse
from ..models.resnet import ResNet
from ..nn import BasicBlock
from ..training.config import TrainConfig
from ..training.data import CIFAR, open_data
from ..training.errors import UserError
from ..training.loop import Trainer
from ..training.network import create_network
from .outcome import ROOT, CannotRun, Checks, Context, Outcome, default_backend

CASES = [
    Case("resnet50", 4, 224, "fp32", device="cuda"),
    Case("resnet50", 4, 224, "bf16", device="cuda"),
    Case("resnet18", 4, 224, "fp16", device="cuda"),
]
DRY_CASE = Case("resnet8", 2, 8, "fp32", classes=3)
# Pictures of a fixed order, weights of a fixed seed: the first losses differ by rounding alone,
# which each step after multiplies.
FIRST_STEPS = 3
FIRST_LOSSES = 1e-2
# ResNet-20 on 1,437 scanned digits is right on 97 to 99 % of the others after these epochs.
EPOCHS = 12
ACCURACY = 0.95
ACCURACY_OF_CIFAR = 0.75
BELOW_STOCK = 0.02


def step(context: Context) -> Outcome:
    """The correctness gate of the benchmarks: each gradient against fp64 and stock torch."""
    checks = Checks()
    backends = list(context.backends.items())
    for name, backend in backends[:1] if context.dry else backends:
        for case in [DRY_CASE] if context.dry else CASES:

            def make(case: Case, fused: bool, backend: str = backend) -> nn.Module:
                return _model(case, fused, context)

            with default_backend(backend), precision("fp32"):
                verdict = gate.check(case, make)
            checks.add(f"{name} {case.model} {case.dtype}", verdict.passed, str(verdict))
            checks.outcome.figures[f"{name} {case.model} {case.dtype}"] = {
                "error": verdict.error,
                "limit": verdict.limit,
                "stock": verdict.stock,
            }
    if context.dry:
        checks.outcome.needs_gpu += ["ResNet-18 and ResNet-50 at 224x224 against cuDNN"]
    return checks.outcome


def _model(case: Case, fused: bool, context: Context) -> nn.Module:
    if context.dry:
        torch.manual_seed(case.seed)
        model: nn.Module = ResNet(BasicBlock, (1,), num_classes=case.classes, stem="cifar", width=8)
        model = (fuse(model) if fused else model).train()
    else:
        model = create_model(case, fused)
    if fused and context.inject:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
    return model


class Silent:
    """A watcher of the training that prints epochs into the part's log."""

    def step(self, epoch: int, steps: int, loss: float, accuracy: float, rate: float) -> None:
        """Nothing."""

    def epoch(self, row: dict[str, float]) -> None:
        print({name: round(value, 4) for name, value in row.items()}, flush=True)


def training(context: Context) -> Outcome:
    """CIFAR-10 where it lies in data/, else scanned digits: fused against stock modules."""
    config = _config(context)
    try:
        data = open_data(config)
    except UserError as error:
        raise CannotRun(str(error)) from error
    checks, runs = Checks(), {}
    backends = list(context.backends.items())
    providers = [("stock", "native"), *(backends[:1] if context.dry else backends)]
    for name, backend in providers:
        stock = name == "stock"
        # The captured step is that of CUDA's kernels; the first losses come before the capture.
        own = dataclasses.replace(config, stock=stock, cuda_graph=name == "cuda")
        with default_backend(backend):
            runs[name] = _train(own, data, context)
    shift = 0.5 if context.inject else 0.0
    expected = [loss + shift for loss in runs["stock"]["losses"][:FIRST_STEPS]]
    for name, run in list(runs.items())[1:]:
        near = all(
            math.isclose(a, b, rel_tol=FIRST_LOSSES)
            for a, b in zip(run["losses"][:FIRST_STEPS], expected, strict=True)
        )
        first = ", ".join(f"{loss:.4f}" for loss in run["losses"][:FIRST_STEPS])
        wanted = ", ".join(f"{loss:.4f}" for loss in expected)
        checks.add(f"{name}: first losses", near, f"{first}; stock {wanted}")
        if not context.dry:
            least = ACCURACY if config.data == "digits" else ACCURACY_OF_CIFAR
            least = max(least, runs["stock"]["accuracy"] - BELOW_STOCK)
            good = run["accuracy"] >= least
            checks.add(f"{name}: test accuracy", good, f"{run['accuracy']:.4f}, least {least:.4f}")
    checks.outcome.figures |= {
        name: {k: v for k, v in run.items() if k != "losses"} for name, run in runs.items()
    }
    checks.outcome.figures["data"] = config.data
    if context.dry:
        checks.outcome.needs_gpu += ["training to its accuracy", "the captured training step"]
    return checks.outcome


def _config(context: Context) -> TrainConfig:
    if context.dry:
        settings = {"model": "resnet8", "batch_size": 4, "epochs": 1, "device": "cpu"}
        return TrainConfig(**settings, warmup_epochs=0.0)  # type: ignore[arg-type]
    cifar = (ROOT / "data" / CIFAR["cifar10"][1]).is_dir()
    return TrainConfig(
        data="cifar10" if cifar else "digits",
        data_dir=str(ROOT / "data"),
        epochs=EPOCHS,
        batch_size=128 if cifar else 64,
        amp="bf16",
        device="cuda",
    )


def _train(config: TrainConfig, data: Any, context: Context) -> dict[str, Any]:
    """Losses of the steps; on a GPU also accuracy and pictures per second, of whole epochs."""
    torch.manual_seed(config.seed)
    info = data.info
    network = create_network(config.model, len(info.classes), info.channels, not config.stock)
    trainer = Trainer(config, data, network)
    if not context.dry:
        trainer.fit(Silent(), lambda: None, lambda: 0)
        last = trainer.history[-1]
        return {
            "losses": trainer.log.rows()[:, 1].tolist(),
            "accuracy": last["test_accuracy"],
            "images_per_second": last["images_per_second"],
        }
    trainer.model.train()
    batches = data.train_batches(config.seed, 0, config.batch_size, 0, trainer.device)
    for _, (images, labels) in zip(range(FIRST_STEPS), batches, strict=False):
        trainer._train_step(images, labels)
        trainer.step += 1
    return {"losses": trainer.log.rows()[:, 1].tolist()}
