"""Fine-tuning on few pictures from a run of our own, frozen layers, head rate, averaged weights."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resnet_kernels import fuse, models
from resnet_kernels.cli import main
from resnet_kernels.training.checkpoint import load_checkpoint
from resnet_kernels.training.config import TrainConfig
from resnet_kernels.training.errors import UserError
from resnet_kernels.training.finetune import averaged, freeze, head_of, load_init, restore_averaged
from resnet_kernels.training.optim import make_optimizer, set_lr

TEN = [str(i) for i in range(10)]


def digit_tree(root: Path, digits: range, train: int, test: int, noise: int = 0) -> Path:
    """So many scans of each digit as small colour pictures, in folders named a, b, c ..."""
    from sklearn.datasets import load_digits

    scans, draw = load_digits(), np.random.default_rng(0)
    for digit in digits:
        chosen = np.flatnonzero(scans.target == digit)[: train + test]
        for place, index in enumerate(chosen):
            folder = root / ("train" if place < train else "test") / chr(ord("a") + digit)
            folder.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((scans.images[index] * 15.9).astype(np.uint8)).resize((16, 16))
            pixels = np.asarray(grey) + draw.normal(0, noise, (16, 16))
            grey = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            grey.convert("RGB").save(folder / f"{place}.png")
    return root


def train(data: Path, out: Path, *options: str) -> float:
    """Test accuracy of a run."""
    arguments = ["train", "--data", str(data), "--model", "resnet8", "--device", "cpu"]
    assert main([*arguments, "--out", str(out), *options]) == 0
    with (out / "metrics.csv").open() as file:
        return float(list(csv.DictReader(file))[-1]["test_accuracy"])


def test_fine_tuning_beats_training_from_scratch(tmp_path: Path) -> None:
    """Clean scans of ten digits, then noisy ones of five, of which there are four each."""
    many = digit_tree(tmp_path / "many", range(10), 60, 10)
    few = digit_tree(tmp_path / "few", range(5, 10), 4, 60, noise=60)
    train(many, tmp_path / "base", "--epochs", "8", "--batch-size", "50", "--lr", "0.1")
    base = tmp_path / "base" / "last.pt"
    common = ("--epochs", "12", "--batch-size", "10", "--lr", "0.02", "--weight-decay", "0")
    init = ("--init", str(base), "--num-classes", "5")
    scratch = train(few, tmp_path / "scratch", *common)
    tuned = train(few, tmp_path / "tuned", *common, *init, "--head-lr", "0.1")
    head = train(few, tmp_path / "head", *common, *init, "--freeze", "backbone", "--head-lr", "0.3")
    assert tuned > scratch + 0.1, (tuned, head, scratch)
    assert head > scratch + 0.1, (tuned, head, scratch)

    before, after = (load_checkpoint(p).model for p in (base, tmp_path / "head" / "last.pt"))
    assert after["fc.weight"].shape == (5, 64)
    for name, value in before.items():
        if not name.startswith("fc."):
            assert torch.equal(after[name], value), name
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    assert (config["init"], config["freeze"]) == (str(base), "backbone")


@pytest.mark.parametrize("fused", [True, False])
def test_frozen_batch_norm_keeps_its_statistics(fused: bool) -> None:
    torch.manual_seed(0)
    model = models.resnet8(fused=fused)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = freeze(model, "bn")
    assert len(kept) == 7
    optimizer = make_optimizer(model, TrainConfig(lr=0.1))
    model.train()
    for module in kept:
        module.eval()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        is_bn = "bn" in name
        assert torch.equal(value, before[name]) == is_bn, name


def test_frozen_layers_have_stock_gradients() -> None:
    """With a frozen backbone in eval mode only the head gets a gradient, the one of stock."""
    torch.manual_seed(0)
    stock = models.resnet8(fused=False)
    with torch.no_grad():
        stock.bn1.running_mean.uniform_(-1, 1)
    fused = fuse(models.resnet8(fused=False))
    fused.load_state_dict(stock.state_dict())
    x = torch.randn(4, 3, 16, 16)
    for model in (stock, fused):
        for module in freeze(model.train(), "backbone"):
            module.eval()
        model(x).square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is not None] == [
            "fc.weight",
            "fc.bias",
        ]
    torch.testing.assert_close(fused.fc.weight.grad, stock.fc.weight.grad)


def test_the_head_has_its_own_learning_rate() -> None:
    model = models.resnet8()
    assert head_of(model) == "fc"
    optimizer = make_optimizer(model, TrainConfig(lr=0.1, head_lr=0.4))
    set_lr(optimizer, 0.05)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.fc.weight)] == rates[id(model.fc.bias)] == pytest.approx(0.2)
    assert rates[id(model.conv1.weight)] == rates[id(model.bn1.bias)] == pytest.approx(0.05)
    assert len(rates) == len(list(model.parameters()))


def test_averaged_weights_follow_by_the_decay_and_resume() -> None:
    model = nn.Linear(2, 1)
    copy = averaged(model, 0.9)
    assert copy is not None
    copy.update_parameters(model)
    first = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    copy.update_parameters(model)
    torch.testing.assert_close(copy.module.weight, first + 0.1)

    # The same model learns nothing more and averages: the copy goes on from its saved weights.
    again = averaged(nn.Linear(2, 1), 0.9)
    assert again is not None
    restore_averaged(again, copy.module.state_dict())
    again.update_parameters(model)
    torch.testing.assert_close(again.module.weight, first + 0.1 + 0.9 * 0.1)


def test_head_is_kept_for_the_same_classes_alone(tmp_path: Path) -> None:
    saved = models.resnet8(num_classes=6).state_dict()
    letters = list("abcdef")
    torch.save({"model": saved, "ema": {}, "data": {"classes": letters}}, tmp_path / "own.pt")
    own, other = models.resnet8(num_classes=6), models.resnet8(num_classes=6)
    assert load_init(own, tmp_path / "own.pt", letters)
    assert torch.equal(own.fc.weight, saved["fc.weight"])
    assert not load_init(other, tmp_path / "own.pt", list("uvwxyz"))
    assert not torch.equal(other.fc.weight, saved["fc.weight"])
    assert torch.equal(other.conv1.weight, saved["conv1.weight"])


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["evil.pt", "evil-checkpoint.pt", "evil.pth"])
def test_malicious_weights_run_no_code(name: str, tmp_path: Path) -> None:
    evil = Evil(tmp_path / "owned")
    content = {"format": "resnet_kernels.checkpoint/3", "model": evil} if "-" in name else evil
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=name.endswith(".pt"))
    with pytest.raises(UserError, match="holds more than tensors") as caught:
        load_init(models.resnet8(), tmp_path / name, TEN)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "no file"),
        ("text", "is damaged, or holds more"),
        ("truncated", "cannot read"),
        ("text.safetensors", "cannot read"),
        ("list", "expected a state_dict"),
        ("resnet20", "does not fit ResNet as built here: unexpected: layer1.1.conv1.weight"),
        ("one channel", "conv1.weight: (16, 1, 3, 3) in the file, (16, 3, 3, 3) in the model"),
    ],
)
def test_unusable_weights_are_one_line(
    case: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / (case if "." in case else "weights.pt")
    state = models.create(
        "resnet20" if case == "resnet20" else "resnet8",
        num_classes=10,
        in_channels=1 if case == "one channel" else 3,
    ).state_dict()
    if case != "missing":
        torch.save([state] if case == "list" else {"state_dict": state}, path)
    if case.startswith("text"):
        path.write_text("not weights")
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    few = digit_tree(tmp_path / "few", range(2), 2, 1)
    command = ["train", "--data", str(few), "--model", "resnet8", "--init", str(path)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: --init: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
