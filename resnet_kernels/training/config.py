"""The settings of a training run, the presets per data set, what a resumed run may change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from .errors import UserError

# A resumed run may change these: they say where and how long it runs, not what it computes.
CHANGEABLE_ON_RESUME = frozenset(
    {"data_dir", "epochs", "workers", "threads", "device", "tensorboard", "checkpoint_steps"}
)


_LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "size": 0,
    "workers": 0,
    "threads": 0,
    "checkpoint_steps": 0,
}
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr": ("a number above 0", lambda v: 0 < v < math.inf),
    "momentum": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "weight_decay": ("a number of at least 0", lambda v: 0 <= v < math.inf),
    "label_smoothing": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "head_lr": ("a number of at least 0", lambda v: 0 <= v < math.inf),
    "ema": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    # What numpy and scikit-learn take.
    "seed": ("at least 0 and below 2^32", lambda v: 0 <= v < 2**32),
}


_CHOICES = {
    "amp": ("none", "bf16", "fp16"),
    "freeze": ("none", "bn", "backbone"),
    "recompute": ("none", "stage"),
}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one run. `data` is "digits", "cifar10", "cifar100" or a path to a tree
    of image folders. `batch_size` is that of all processes together; `head_lr` 0 stands for `lr`,
    `ema` 0 for no averaged weights, `checkpoint_steps` 0 for a checkpoint after each epoch alone.
    """

    data: str = "digits"
    data_dir: str = "data"
    model: str = "resnet20"
    stock: bool = False
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_epochs: float = 1.0
    amp: str = "none"
    size: int = 0
    seed: int = 0
    workers: int = 2
    threads: int = 0
    device: str = "cpu"
    init: str = ""
    freeze: str = "none"
    head_lr: float = 0.0
    ema: float = 0.0
    recompute: str = "none"
    sync_bn: bool = True
    compile: bool = False
    cuda_graph: bool = False
    checkpoint_steps: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"{_option(name)}: expected at least {least}, got {getattr(self, name)}"
                )
        for name, (expected, within) in _RANGES.items():
            value = getattr(self, name)
            if not within(value):
                raise UserError(f"{_option(name)}: expected {expected}, got {value:g}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
                raise UserError(
                    f"{_option(name)}: expected {expected}, got {getattr(self, name)!r}"
                )
        self._check_combinations()
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"--warmup-epochs: expected at least 0 and below the run's {self.epochs} epochs, "
                f"got {self.warmup_epochs:g}"
            )

    def _check_combinations(self) -> None:
        if self.freeze == "backbone" and not self.init:
            raise UserError("--freeze backbone: needs --init, the weights to keep")
        if self.recompute != "none" and self.stock:
            raise UserError("--recompute: needs the fused model, not --stock")
        if self.cuda_graph and not self.device.startswith("cuda"):
            raise UserError(f"--cuda-graph: needs a CUDA device, this run is on {self.device}")
        if self.cuda_graph and self.amp == "fp16":
            raise UserError("--cuda-graph: expected --amp none or bf16, fp16 reads the loss scale")


# Small: the CIFAR recipe of He et al. 2015 with Nesterov and one cosine. Large: theirs for
# ImageNet, lr 0.1 per 256 pictures, with the label smoothing of torchvision's recipe.
PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": "resnet20",
        "epochs": 30,
        "batch_size": 64,
        "lr": 0.1,
        "warmup_epochs": 2.0,
    },
    "small": {
        "model": "resnet20",
        "epochs": 30,
        "batch_size": 128,
        "lr": 0.2,
        "warmup_epochs": 1.0,
    },
    "large": {
        "model": "resnet50",
        "epochs": 90,
        "batch_size": 256,
        "lr": 0.1,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
        "warmup_epochs": 5.0,
        "size": 224,
        "workers": 4,
    },
}


def new_config(kind: str, given: dict[str, Any]) -> TrainConfig:
    """The preset of a kind of data ("digits", "small", "large") under the given options."""
    settings = {**PRESETS[kind], **given}
    if "warmup_epochs" not in given and "epochs" in given:
        settings["warmup_epochs"] = min(settings["warmup_epochs"], settings["epochs"] / 4)
    return TrainConfig(**settings)


def resumed_config(saved: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """The settings of a checkpoint under the given ones, which may only say where and how long.

    Raises: UserError naming the first option that contradicts the checkpoint.
    """
    for name, value in given.items():
        if name not in CHANGEABLE_ON_RESUME and saved[name] != value:
            raise UserError(
                f"{_option(name)}: the checkpoint was trained with {saved[name]!r}, got {value!r}"
            )
    return TrainConfig(**{**saved, **given})
