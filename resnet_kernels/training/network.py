"""A network by name or for a run, with the errors of a command line."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..fusion import fuse
from .config import TrainConfig
from .errors import UserError
from .finetune import load_init
from .ranks import Ranks


def create_network(name: str, classes: int, channels: int, fused: bool) -> nn.Module:
    """`resnet_kernels.models.create` with the weights that torch's global generator gives.

    Raises: UserError for a name that is not there.
    """
    from .. import models

    if name not in models.names():
        raise UserError(f"--model: expected one of {', '.join(models.names())}, got {name!r}")
    return models.create(name, num_classes=classes, in_channels=channels, fused=fused)


def training_network(
    config: TrainConfig, classes: list[str], channels: int, ranks: Ranks
) -> nn.Module:
    """The network of a run: by name, with the weights of --init.

    Raises: UserError for an unknown name, unusable weights, or stock SyncBN on the CPU.
    """
    model = create_network(config.model, len(classes), channels, not config.stock)
    if config.recompute != "none":
        fuse(model, recompute=config.recompute)
    if config.init:
        load_init(model, Path(config.init), classes)
    if ranks.world > 1 and config.sync_bn and config.stock and config.device == "cpu":
        raise UserError("--stock: torch's SyncBatchNorm needs a GPU; add --no-sync-bn")
    return model
