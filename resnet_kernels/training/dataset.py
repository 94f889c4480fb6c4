"""What the training loop needs from data: a description, and batches by (seed, epoch, step)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from .ranks import ALONE, Ranks

Batch = tuple[Tensor, Tensor]  # images [B, C, H, W] fp32 in channels_last memory, labels [B] int64


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Description of a data set; `mean` and `std` are per channel, for images scaled to 0..1.

    `fit` says how a picture of another size gets to `size`: "resize", or "crop" of its middle.
    """

    name: str
    classes: list[str]
    channels: int
    size: list[int]
    mean: list[float]
    std: list[float]
    train_images: int
    test_images: int
    fit: str = "resize"

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class DataSet(Protocol):
    """A training and a test split."""

    info: DataInfo

    def train_batches(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        start_step: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> Iterator[Batch]:
        """Augmented batches of an epoch from `start_step` on, the same wherever that is; of each
        the rows of this process."""

    def test_batches(
        self, batch_size: int, device: torch.device, ranks: Ranks = ALONE
    ) -> Iterator[Batch]:
        """The test split, in order, without augmentation; a process gets its part of each batch,
        none of a batch that is smaller than the number of processes and leaves it nothing."""


def generator(seed: int, *place: int | str) -> torch.Generator:
    """A CPU random generator of its own for one place (epoch, step, image ...) of a seeded run."""
    text = "/".join(str(part) for part in (seed, *place))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches only (every step has one shape), but at least one."""
    return max(1, images // batch_size)


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """The order of the images in an epoch, [images] int64."""
    return torch.randperm(images, generator=generator(seed, "order", epoch))
