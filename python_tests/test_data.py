"""Data sets: digits, the original CIFAR-10 format, image folders; batches that resume anywhere."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from resnet_kernels.training.config import TrainConfig
from resnet_kernels.training.data import kind_of, open_data
from resnet_kernels.training.dataset import generator
from resnet_kernels.training.errors import UserError
from resnet_kernels.training.memory_set import channel_moments, crop_and_flip

CPU = torch.device("cpu")
CLASSES = [f"class{i}" for i in range(10)]


def picture_tree(root: Path, size: int, test: str = "test", count: int = 6) -> Path:
    """`count` seeded pictures a class, brighter for each class, as PNG (lossless)."""
    draw = np.random.default_rng(0)
    for split in ("train", test):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(60 * label, 60 * label + 60, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def cifar10_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """A cifar-10-batches-py of 5 x 20 and 10 pictures; the list of checksums is fitted to it."""
    from torchvision.datasets import CIFAR10

    draw = np.random.default_rng(1)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data, usedforsecurity=False).hexdigest()]

    pixels = draw.integers(0, 256, (110, 3072), dtype=np.uint8)
    parts = [(f"data_batch_{i + 1}", slice(20 * i, 20 * i + 20)) for i in range(5)]
    listing = [
        write(name, {"data": pixels[part], "labels": [i % 10 for i in range(110)][part]})
        for name, part in [*parts, ("test_batch", slice(100, 110))]
    ]
    _, meta_md5 = write("batches.meta", {"label_names": CLASSES})
    monkeypatch.setattr(CIFAR10, "train_list", listing[:5])
    monkeypatch.setattr(CIFAR10, "test_list", listing[5:])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": meta_md5}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path, pixels


def test_original_cifar10_format(cifar10_root: tuple[Path, np.ndarray]) -> None:
    root, pixels = cifar10_root
    data = open_data(TrainConfig(data="cifar10", data_dir=str(root)))
    assert data.info.classes == CLASSES
    assert (data.info.train_images, data.info.test_images, data.info.size) == (100, 10, [32, 32])
    images, labels = next(data.test_batches(10, CPU))
    assert labels.tolist() == list(range(10))
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.info.mean, data.info.std))
    expected = (torch.from_numpy(pixels[100:]).view(10, 3, 32, 32) / 255 - mean) / std
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)


def test_original_cifar100_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cifar-100-python of 20 and 10 pictures with a hundred class names."""
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(2).integers(0, 256, (30, 3072), dtype=np.uint8)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data, usedforsecurity=False).hexdigest()]

    names = [f"class{i}" for i in range(100)]
    parts = {"train": pixels[:20], "test": pixels[20:]}
    for name, part in parts.items():
        labels = [99 - i for i in range(len(part))]
        listing = [write(name, {"data": part, "fine_labels": labels})]
        monkeypatch.setattr(CIFAR100, f"{name}_list", listing)
    _, md5 = write("meta", {"fine_label_names": names})
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5}
    monkeypatch.setattr(CIFAR100, "meta", meta)
    assert kind_of("cifar100") == "small"
    data = open_data(TrainConfig(data="cifar100", data_dir=str(tmp_path)))
    assert (data.info.name, data.info.classes) == ("cifar100", names)
    assert (data.info.train_images, data.info.test_images) == (20, 10)
    images, labels = next(data.test_batches(10, CPU))
    assert labels.tolist() == [99 - i for i in range(10)]
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.info.mean, data.info.std))
    expected = (torch.from_numpy(pixels[20:]).view(10, 3, 32, 32) / 255 - mean) / std
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)


def test_missing_cifar10_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import cifar

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(cifar, "download_and_extract_archive", offline)
    with pytest.raises(UserError, match=r"no download \(no network\); point --data-dir") as caught:
        open_data(TrainConfig(data="cifar10", data_dir=str(tmp_path / "none")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_digits_split_is_stratified_and_seeded() -> None:
    first, again, other = (open_data(TrainConfig(seed=seed)) for seed in (3, 3, 4))
    labels = [next(d.test_batches(360, CPU))[1] for d in (first, again, other)]
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])
    assert labels[0].bincount().min() >= 35
    assert labels[0].bincount().max() <= 37
    images = torch.cat([x for x, _ in first.test_batches(50, CPU)])
    train, _ = next(first.train_batches(0, 0, 1437, 0, CPU))
    assert (images.shape, train.shape) == ((360, 1, 16, 16), (1437, 1, 16, 16))
    assert abs(images.mean().item()) < 0.05
    assert images.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("test", ["test", "val"])
def test_small_pictures_are_read_exactly(test: str, tmp_path: Path) -> None:
    root = picture_tree(tmp_path, 12, test)
    assert kind_of(str(root)) == "small"
    data = open_data(TrainConfig(data=str(root)))
    assert data.info.classes == ["ant", "bee", "cat"]
    images, labels = next(data.test_batches(18, CPU))
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    mean, std = torch.tensor(data.info.mean), torch.tensor(data.info.std)
    pixel = ((images.permute(0, 2, 3, 1) * std + mean) * 255).round()
    expected = np.asarray(Image.open(root / test / "bee" / "0.png"))
    assert np.array_equal(pixel[6].numpy(), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_large_pictures_do_not_depend_on_workers_or_start(workers: int, tmp_path: Path) -> None:
    root = picture_tree(tmp_path, 80, count=4)
    assert kind_of(str(root)) == "large"
    plain = open_data(TrainConfig(data=str(root), size=32, workers=0))
    data = open_data(TrainConfig(data=str(root), size=32, workers=workers))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = list(plain.train_batches(7, 1, 4, 0, CPU))
    later = list(data.train_batches(7, 1, 4, 1, CPU))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(whole) == 3
    for (x, y), (x2, y2) in zip(whole[1:], later, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert whole[0][0].shape == (4, 3, 32, 32)
    other = next(plain.train_batches(7, 2, 4, 0, CPU))
    assert not torch.equal(other[0], whole[0][0])


def test_large_pictures_are_cut_as_for_imagenet(tmp_path: Path) -> None:
    """Red grows with x and green with y, so a picture shows where it was cut out, and which way.

    Training: 8 % to all of the area, any aspect from 3/4 to 4/3, half of them mirrored. Test: the
    shorter side resized to 256/224 of the crop, then the middle.
    """
    height, width, size = 300, 400, 224
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    for split, count in (("train", 40), ("test", 1)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    data = open_data(TrainConfig(data=str(tmp_path), size=size, workers=0))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.info.mean, data.info.std))

    (tested, _), *_ = data.test_batches(8, CPU)
    short = Image.fromarray(pixels).resize((round(256 * width / height), 256), Image.BILINEAR)
    left, top = (short.width - size) // 2, (256 - size) // 2
    cut = np.asarray(short.crop((left, top, left + size, top + size))) / 255
    seen = (tested[0] * std + mean).permute(1, 2, 0).numpy()
    assert np.abs(seen - cut).max() < 0.02

    trained = torch.cat([x for x, _ in data.train_batches(0, 0, 8, 0, CPU)]) * std + mean
    assert trained.shape == (80, 3, size, size)
    red, green = trained[:, 0].mean(1), trained[:, 1].mean(2)
    mirrored = red[:, 0] > red[:, -1]
    assert 20 <= int(mirrored.sum()) <= 60
    assert bool((green[:, 0] < green[:, -1]).all())
    wide = (red[:, 0] - red[:, -1]).abs() * width
    tall = (green[:, -1] - green[:, 0]) * height
    area, aspect = wide * tall / (width * height), wide / tall
    assert 0.05 < area.min() < 0.3 and 0.7 < area.max() < 1.05
    assert 0.65 < aspect.min() < 0.85 and 1.2 < aspect.max() < 1.5


def test_batches_in_memory_resume_at_any_step() -> None:
    data = open_data(TrainConfig())
    whole = list(data.train_batches(0, 2, 256, 0, CPU))
    later = list(data.train_batches(0, 2, 256, 3, CPU))
    assert len(whole) == 5
    for (x, y), (x2, y2) in zip(whole[3:], later, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert whole[0][0].is_contiguous(memory_format=torch.channels_last)
    next_epoch = next(data.train_batches(0, 3, 256, 0, CPU))
    assert not torch.equal(next_epoch[1], whole[0][1])


def test_crop_and_flip_is_a_window_of_the_padded_picture() -> None:
    images = torch.randint(1, 256, (40, 6, 5, 3), dtype=torch.uint8, generator=generator(0, "x"))
    result = crop_and_flip(images, 2, True, generator(0, "y"))
    padded = F.pad(images, (0, 0, 2, 2, 2, 2))
    places = []
    for picture, source in zip(result, padded, strict=True):
        windows = {
            (top, left, flip): window.flip(1) if flip else window
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for window in [source[top : top + 6, left : left + 5]]
        }
        places += [next(k for k, w in windows.items() if torch.equal(picture, w))]
    assert {p[0] for p in places} == set(range(5)) == {p[1] for p in places}
    assert 8 < sum(p[2] for p in places) < 32
    assert torch.equal(crop_and_flip(images, 0, False, generator(0, "z")), images)


def test_channel_moments() -> None:
    images = torch.randint(256, (7, 4, 5, 3), dtype=torch.uint8, generator=generator(1, "m"))
    mean, std = channel_moments(images)
    scaled = images.double().view(-1, 3) / 255
    assert mean == pytest.approx(scaled.mean(0).tolist(), abs=1e-6)
    assert std == pytest.approx(scaled.std(0, unbiased=False).tolist(), abs=1e-6)


def test_wrong_trees_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected digits, cifar10, cifar100 or a folder"):
        kind_of("digit")
    with pytest.raises(UserError, match="should hold train"):
        kind_of(str(tmp_path))
    root = picture_tree(tmp_path, 8)
    (root / "test" / "cat").rename(root / "test" / "dog")
    with pytest.raises(UserError, match="different classes: cat, dog"):
        open_data(TrainConfig(data=str(root)))
    (root / "test" / "dog").rename(root / "test" / "cat")
    (root / "train" / "bee" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cannot read the picture .*3\.png"):
        open_data(TrainConfig(data=str(root)))
