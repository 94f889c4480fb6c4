"""Larger pictures in folders, decoded and augmented by torchvision in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from .dataset import Batch, DataInfo, epoch_order, generator, steps_per_epoch


class _Seeded(Dataset[tuple[Tensor, int]]):
    """Pictures of an epoch in its order; each draws its augmentation from (seed, epoch, index).

    Which worker loads a picture, and what else it loads, then changes nothing.
    """

    def __init__(self, folder: ImageFolder, order: Sequence[int], seed: int, epoch: int) -> None:
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
        self._train, self._test = train, test

    def train_batches(
        self, seed: int, epoch: int, batch_size: int, start_step: int, device: torch.device
    ) -> Iterator[Batch]:
        images = len(self._train)
        end = min(images, steps_per_epoch(images, batch_size) * batch_size)
        order = epoch_order(images, seed, epoch)[start_step * batch_size : end].tolist()
        return self._load(_Seeded(self._train, order, seed, epoch), batch_size, device)

    def test_batches(self, batch_size: int, device: torch.device) -> Iterator[Batch]:
        return self._load(self._test, batch_size, device)

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
        for images, labels in loader:
            images = images.to(device, non_blocking=cuda, memory_format=torch.channels_last)
            yield images, labels.to(device, non_blocking=cuda)
