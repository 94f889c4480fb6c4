"""A network by name, with the error of a command line."""

from __future__ import annotations

from torch import nn

from .errors import UserError


def create_network(name: str, classes: int, channels: int, fused: bool) -> nn.Module:
    """`resnet_kernels.models.create` with the weights that torch's global generator gives.

    Raises: UserError for a name that is not there.
    """
    from .. import models

    if name not in models.names():
        raise UserError(f"--model: expected one of {', '.join(models.names())}, got {name!r}")
    return models.create(name, num_classes=classes, in_channels=channels, fused=fused)
