"""The main job on digits, fused and stock; schedule, parameter groups, metrics, op counts."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from resnet_kernels.cli import main
from resnet_kernels.training.config import TrainConfig, new_config
from resnet_kernels.training.errors import UserError
from resnet_kernels.training.metrics import COLUMNS, STEP_COLUMNS
from resnet_kernels.training.optim import lr_at, make_optimizer, param_groups

LINE = re.compile(
    r"^Test set: average loss (\d\.\d{4}), accuracy (\d+\.\d)% \((\d+)/(\d+)\)$", re.M
)


def train(out: Path, *options: str) -> int:
    return main(["train", "--device", "cpu", "--out", str(out), *options])


def assert_steps_fit(run: Path, epochs: list[dict[str, str]], steps_per_epoch: int) -> None:
    """Every step once; an epoch's loss is the mean over its steps; the lr is the schedule's."""
    with (run / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == STEP_COLUMNS
    assert [int(row["step"]) for row in rows] == list(range(1, len(epochs) * steps_per_epoch + 1))
    config = json.loads((run / "config.json").read_text())
    warmup = round(config["warmup_epochs"] * steps_per_epoch)
    for i, row in enumerate(rows):
        assert int(row["epoch"]) == i // steps_per_epoch + 1
        assert float(row["lr"]) == pytest.approx(
            lr_at(i, len(rows), warmup, config["lr"]), rel=1e-5
        )
    for i, epoch in enumerate(epochs):
        losses = [float(row["loss"]) for row in rows[i * steps_per_epoch :][:steps_per_epoch]]
        assert sum(losses) / len(losses) == pytest.approx(float(epoch["train_loss"]), rel=1e-4)


@pytest.mark.parametrize("kind", ["fused", "stock"])
def test_digits_are_learned(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "resnet8", "--epochs", "6"] + ["--stock"] * (kind == "stock")
    assert train(tmp_path, *options) == 0
    found = LINE.search(capsys.readouterr().out)
    assert found is not None
    correct, seen = int(found[3]), int(found[4])
    assert seen == 360
    assert correct / seen >= 0.95
    assert found[2] == f"{100 * correct / seen:.1f}"

    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["epoch"]) for row in rows] == list(range(1, 7))
    assert float(rows[-1]["test_accuracy"]) == pytest.approx(correct / seen, abs=1e-5)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"]) / 3
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert_steps_fit(tmp_path, rows, steps_per_epoch=22)

    counts = json.loads((tmp_path / "counts.json").read_text())
    if kind == "stock":
        assert counts == {"per_step": {}, "declared": {}, "undeclared": {}}
    else:
        # resnet8 has 7 convolutions, each with batch norm: a gradient for every weight.
        assert counts["per_step"]["conv_wgrad"] == 7
        assert counts["per_step"]["bn_bwd_apply"] == 7
        # Digits have one channel, whose layout is open: the first convolution is torch's.
        assert counts["declared"] == {"conv_fwd_stats": 1, "conv_wgrad": 1}
        assert counts["undeclared"] == {}


def test_fused_gradients_are_those_of_stock() -> None:
    """One step of the same weights and batch; accuracy alone does not see a wrong backward."""
    from resnet_kernels.bench.gate import check
    from resnet_kernels.bench.workload import Case

    verdict = check(Case("resnet8", 4, 16, classes=10, channels=1))
    assert verdict.passed, str(verdict)


def test_lr_warms_up_then_follows_a_cosine() -> None:
    values = [lr_at(step, 110, 10, 0.4) for step in range(110)]
    assert values[:10] == pytest.approx([0.04 * (i + 1) for i in range(10)])
    assert values[10] == pytest.approx(0.4)
    assert values[60] == pytest.approx(0.2)
    assert values[35] == pytest.approx(0.2 * (1 + math.cos(math.pi / 4)))
    assert 0 < values[-1] < 0.4 * 0.001
    assert all(a > b for a, b in itertools.pairwise(values[10:]))
    assert lr_at(0, 10, 0, 0.4) == pytest.approx(0.4)


def test_batch_norm_and_biases_have_no_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    model.register_parameter("frozen", frozen)
    decay, rest = param_groups(model, 5e-4)
    assert (decay["weight_decay"], rest["weight_decay"]) == (5e-4, 0.0)
    assert [
        p is q for p, q in zip(decay["params"], (model[0].weight, model[3].weight), strict=True)
    ]
    expected = [model[0].bias, model[1].weight, model[1].bias, model[3].bias]
    assert len(rest["params"]) == 4
    assert all(p is q for p, q in zip(rest["params"], expected, strict=True))
    assert make_optimizer(model, TrainConfig()).defaults["nesterov"] is True


def test_presets_and_given_options() -> None:
    config = new_config("small", {"data": "cifar10", "lr": 0.3})
    assert (config.batch_size, config.lr, config.warmup_epochs) == (128, 0.3, 1.0)
    assert new_config("small", {"epochs": 2}).warmup_epochs == 0.5
    for wrong in ({"epochs": 0}, {"batch_size": 0}, {"amp": "tf32"}, {"warmup_epochs": 99.0}):
        with pytest.raises(UserError, match="expected"):
            new_config("digits", wrong)


def test_a_diverging_run_stops_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", "resnet8", "--epochs", "2", "--lr", "1e30", "--stock")
    assert train(tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert "is not finite" in error
    assert error.count("\n") == 1


def test_bf16_autocast_learns(tmp_path: Path) -> None:
    assert train(tmp_path, "--model", "resnet8", "--epochs", "3", "--amp", "bf16") == 0
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss"]) < 0.6 * float(rows[0]["train_loss"])
