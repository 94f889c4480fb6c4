"""Opens the data a run asks for: scikit-learn's digits, CIFAR, or a tree of image folders."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .config import TrainConfig
from .dataset import DataInfo, DataSet
from .errors import UserError, first_line
from .memory_set import MemorySet, channel_moments

SMALL = 64  # pictures up to this many pixels a side are kept in memory
# name -> (torchvision's class, folder and index file of the set, mean and deviation per channel)
CIFAR: dict[str, tuple[str, str, str, tuple[list[float], list[float]]]] = {
    "cifar10": (
        "CIFAR10",
        "cifar-10-batches-py",
        "batches.meta",
        ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    ),
    "cifar100": (
        "CIFAR100",
        "cifar-100-python",
        "meta",
        ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    ),
}
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TEST_FOLDERS = ("test", "val")

Split = tuple[Tensor, Tensor]  # pictures [N, H, W, C] uint8, labels [N] int64


def kind_of(data: str, size: int = 0) -> str:
    """Which preset suits the data: "digits", "small" (in memory) or "large".

    Raises: UserError if `data` is neither a known name nor a usable tree.
    """
    if data == "digits":
        return "digits"
    if data in CIFAR:
        return "small"
    train, _ = _folders(Path(data))
    height, width = _picture_size(_first_picture(train))
    return "small" if max(height, width) <= SMALL and size in (0, height) else "large"


def open_data(config: TrainConfig) -> DataSet:
    """The data set of a run.

    Raises: UserError, in one line, if it is not there or not usable.
    """
    if config.data == "digits":
        return _digits(config.seed)
    if config.data in CIFAR:
        return _cifar(config.data, Path(config.data_dir))
    if kind_of(config.data, config.size) == "small":
        return _small_folders(Path(config.data))
    return _large_folders(Path(config.data), config)


def _in_memory(
    name: str,
    classes: list[str],
    train: Split,
    test: Split,
    pad: int,
    flip: bool,
    moments: tuple[list[float], list[float]] | None = None,
) -> MemorySet:
    mean, std = moments or channel_moments(train[0])
    _, height, width, channels = train[0].shape
    info = DataInfo(
        name, classes, channels, [height, width], mean, std, len(train[1]), len(test[1])
    )
    return MemorySet(info, train, test, pad, flip)


def _digits(seed: int) -> DataSet:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise UserError("--data digits needs scikit-learn: pip install scikit-learn") from error
    bunch = load_digits()
    # 8x8 scans with 17 grey levels, doubled to 16x16 so that three stages of a CIFAR network fit.
    scans = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    doubled = F.interpolate(scans, scale_factor=2, mode="bilinear", align_corners=False)
    images = doubled.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=bunch.target, random_state=seed
    )
    splits = [
        (images[part], labels[part]) for part in (torch.from_numpy(train), torch.from_numpy(test))
    ]
    return _in_memory(
        "digits", [str(d) for d in range(10)], splits[0], splits[1], pad=2, flip=False
    )


def _cifar(name: str, root: Path) -> DataSet:
    from torchvision import datasets

    kind, folder, index, moments = CIFAR[name]
    here = (root / folder / index).is_file()

    def split(train: bool) -> tuple[Split, list[str]]:
        dataset = getattr(datasets, kind)(str(root), train=train, download=not here)
        return (torch.from_numpy(dataset.data), torch.tensor(dataset.targets)), dataset.classes

    fresh = not root.exists()
    try:
        train, classes = split(train=True)
        test, _ = split(train=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = first_line(error)
        if fresh:
            with contextlib.suppress(OSError):
                root.rmdir()  # torchvision made it; an incomplete download stays
        raise UserError(
            f"--data {name}: no usable {folder} in {root}, and no download ({reason}); "
            "point --data-dir at the folder that holds it"
        ) from error
    return _in_memory(name, classes, train, test, 4, True, moments)


def _folders(root: Path) -> tuple[Path, Path]:
    if not root.is_dir():
        raise UserError(
            f"--data: expected digits, cifar10, cifar100 or a folder, got {str(root)!r}"
        )
    train = root / "train"
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if not train.is_dir() or test is None:
        raise UserError(
            f"--data: {root} should hold train/<class>/ and test/<class>/ (or val/<class>/)"
        )
    return train, test


def _first_picture(folder: Path) -> Path:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(base) != folder and name.lower().endswith(IMG_EXTENSIONS):
                return Path(base, name)
    raise UserError(f"--data: no pictures in {folder}/<class>/")


def _picture_size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"--data: cannot read the picture {path}") from error


def _image_folders(root: Path) -> tuple[Any, Any]:
    from torchvision.datasets import ImageFolder

    train, test = _folders(root)
    try:
        splits = ImageFolder(str(train)), ImageFolder(str(test))
    except FileNotFoundError as error:
        raise UserError(f"--data: {str(error).splitlines()[0]}") from error
    if splits[0].classes != splits[1].classes:
        odd = sorted(set(splits[0].classes) ^ set(splits[1].classes))
        raise UserError(f"--data: {train} and {test} hold different classes: {', '.join(odd[:5])}")
    return splits


def _small_folders(root: Path) -> DataSet:
    train, test = _image_folders(root)
    size = _picture_size(Path(train.samples[0][0]))
    return _in_memory(
        root.name,
        train.classes,
        _decode(train, size),
        _decode(test, size),
        pad=size[0] // 8,
        flip=True,
    )


def _decode(folder: Any, size: tuple[int, int]) -> Split:
    """Every picture as RGB at `size`; one of another size is resized."""
    from PIL import Image

    def read(sample: tuple[str, int]) -> np.ndarray:
        try:
            with Image.open(sample[0]) as image:
                picture = image.convert("RGB")
        except OSError as error:
            raise UserError(f"--data: cannot read the picture {sample[0]}") from error
        if (picture.height, picture.width) != size:
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(picture)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = list(pool.map(read, folder.samples, chunksize=256))
    return torch.from_numpy(np.stack(pictures)), torch.tensor(folder.targets)


def _large_folders(root: Path, config: TrainConfig) -> DataSet:
    from .folder_set import FolderSet

    train, test = _image_folders(root)
    size = config.size or 224
    info = DataInfo(
        root.name,
        train.classes,
        3,
        [size, size],
        IMAGENET_MEAN,
        IMAGENET_STD,
        len(train),
        len(test),
        fit="crop",
    )
    return FolderSet(info, train, test, size, config.workers)
