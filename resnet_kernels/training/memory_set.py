"""Small pictures held as uint8 tensors; crop and flip of a whole batch are one gather."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .dataset import Batch, DataInfo, epoch_order, generator, steps_per_epoch
from .ranks import ALONE, Ranks


class MemorySet:
    """Pictures [N, H, W, C] uint8 and labels [N] int64 of both splits; the first is augmented."""

    def __init__(
        self,
        info: DataInfo,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        pad: int,
        flip: bool,
    ) -> None:
        self.info = info
        self.pad, self.flip = pad, flip
        self._train, self._test = train, test

    def train_batches(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        start_step: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> Iterator[Batch]:
        images, labels = self._train = _to(self._train, device)
        order = epoch_order(len(labels), seed, epoch)
        for step in range(start_step, steps_per_epoch(len(labels), batch_size)):
            batch = order[step * batch_size : (step + 1) * batch_size]
            rows = ranks.rows(len(batch))
            chosen = batch[rows].to(device)
            draw = generator(seed, "augment", epoch, step)
            pictures = crop_and_flip(images[chosen], self.pad, self.flip, draw, (len(batch), rows))
            yield self._normalise(pictures), labels[chosen]

    def test_batches(
        self, batch_size: int, device: torch.device, ranks: Ranks = ALONE
    ) -> Iterator[Batch]:
        images, labels = self._test = _to(self._test, device)
        for start in range(0, len(labels), batch_size):
            part = slice(start, start + batch_size)
            rows = ranks.rows(len(labels[part]))
            if rows.stop > rows.start:
                yield self._normalise(images[part][rows]), labels[part][rows]

    def _normalise(self, images: Tensor) -> Tensor:
        mean = torch.tensor(self.info.mean, device=images.device) * 255
        std = torch.tensor(self.info.std, device=images.device) * 255
        return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def _to(split: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    return split[0].to(device), split[1].to(device)


def crop_and_flip(
    images: Tensor,
    pad: int,
    flip: bool,
    draw: torch.Generator,
    of: tuple[int, slice] | None = None,
) -> Tensor:
    """Random crop out of `pad` black pixels on each side, then a mirror image or not.

    Equivalent to: torchvision's RandomCrop(size, padding=pad), RandomHorizontalFlip() per image.

    Args:
        images: [B, H, W, C] uint8.
        of: size of the batch whose rows the images are, and which rows: each picture is cropped
            as in the whole batch.
    Returns: [B, H, W, C] uint8.
    """
    count, height, width, _ = images.shape
    whole, part = of or (count, slice(None))
    top, left = torch.randint(2 * pad + 1, (2, whole, 1), generator=draw)[:, part]
    rows = torch.arange(height) + top  # [B, H]
    columns = torch.arange(width).expand(count, width)  # [B, W]
    if flip:
        mirrored = torch.rand(whole, 1, generator=draw)[part] < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + left
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    image = torch.arange(count)[:, None, None]
    index = (image, rows[:, :, None], columns[:, None, :])
    return padded[tuple(part.to(images.device) for part in index)]


def channel_moments(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of [N, H, W, C] uint8 pictures scaled to 0..1."""
    counts = torch.stack(
        [torch.bincount(images[..., c].reshape(-1), minlength=256) for c in range(images.shape[-1])]
    ).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(dim=1, keepdim=True)
    mean = share @ levels
    std = (share @ levels.square() - mean.square()).clamp_min(1e-12).sqrt()
    return [round(v, 6) for v in mean.tolist()], [round(v, 6) for v in std.tolist()]
