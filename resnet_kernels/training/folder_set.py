"""Larger pictures in folders, decoded and augmented by torchvision in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from .dataset import Batch, DataInfo, epoch_order, generator, steps_per_epoch
from .errors import UserError
from .ranks import ALONE, Ranks


class _Readable(Dataset[tuple[Tensor, int]]):
    """A folder whose broken pictures are one line that names the file."""

    def __init__(self, folder: ImageFolder) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            return self.folder[index]
        except OSError as error:
            path = self.folder.samples[index][0]
            raise UserError(f"--data: cannot read the picture {path}") from error


class _Seeded(Dataset[tuple[Tensor, int]]):
    """Pictures of an epoch in its order; each draws its augmentation from (seed, epoch, index).

    Which worker loads a picture, and what else it loads, then changes nothing.
    """

    def __init__(self, folder: _Readable, order: Sequence[int], seed: int, epoch: int) -> None:
        self.folder, self.order, self.seed, self.epoch = folder, order, seed, epoch

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        index = self.order[place]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(self.seed, "picture", self.epoch, index).initial_seed())
            return self.folder[index]


def _leave_ctrl_c_to_the_main_process(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class FolderSet:
    """Two ImageFolder trees with the augmentation usual for ImageNet at `size` pixels."""

    def __init__(
        self, info: DataInfo, train: ImageFolder, test: ImageFolder, size: int, workers: int
    ) -> None:
        self.info, self.workers = info, workers
        finish = [transforms.ToTensor(), transforms.Normalize(info.mean, info.std)]
        train.transform = transforms.Compose(
            [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *finish]
        )
        # 256 for 224: the usual ratio of the evaluation resize to the crop.
        test.transform = transforms.Compose(
            [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size), *finish]
        )
        self._train, self._test = _Readable(train), _Readable(test)

    def train_batches(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        start_step: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> Iterator[Batch]:
        images = len(self._train)
        batch = min(images, batch_size)
        rows = ranks.rows(batch)
        order = epoch_order(images, seed, epoch)[: steps_per_epoch(images, batch_size) * batch]
        # Whole batches only, so every batch has the same rows for this process.
        mine = order.view(-1, batch)[start_step:, rows].flatten().tolist()
        dataset = _Seeded(self._train, mine, seed, epoch)
        return self._load(dataset, rows.stop - rows.start, device)

    def test_batches(
        self, batch_size: int, device: torch.device, ranks: Ranks = ALONE
    ) -> Iterator[Batch]:
        mine = Subset(self._test, range(ranks.rank, len(self._test), ranks.world))
        return self._load(mine, max(1, batch_size // ranks.world), device)

    def _load(
        self, dataset: Dataset[Any], batch_size: int, device: torch.device
    ) -> Iterator[Batch]:
        cuda = device.type == "cuda"
        loader = DataLoader(
            dataset,
            batch_size,
            num_workers=self.workers,
            pin_memory=cuda,
            worker_init_fn=_leave_ctrl_c_to_the_main_process if self.workers else None,
            # Its own generator, or making the iterator would draw from the global one.
            generator=torch.Generator(),
        )
        try:
            for images, labels in loader:
                images = images.to(device, non_blocking=cuda, memory_format=torch.channels_last)
                yield images, labels.to(device, non_blocking=cuda)
        except UserError as error:  # a worker's has its traceback around it
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
