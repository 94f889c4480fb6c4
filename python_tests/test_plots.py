"""Curves of runs: which runs are one curve, its name, the running mean, what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

from resnet_kernels.training.errors import UserError
from resnet_kernels.training.metrics import COLUMNS, Run
from resnet_kernels.training.plots import curves, plot_runs, running_mean

BASE = {"data": "digits", "model": "resnet8", "stock": False, "lr": 0.1, "seed": 0, "threads": 0}


def run(name: str, losses: tuple[float, ...] = (2.0, 1.0), **settings: Any) -> Run:
    epochs = [dict.fromkeys(COLUMNS, 0.5) | {"epoch": i + 1.0} for i in range(2)]
    steps = [{"step": i + 1, "epoch": 1, "lr": 0.1, "loss": v} for i, v in enumerate(losses)]
    return Run(name, {**BASE, **settings}, epochs, steps)


@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        ([run("a")], {"": 1}),
        ([run("a"), run("b", stock=True)], {"fused": 1, "stock": 1}),
        ([run("a"), run("b", seed=1, threads=2)], {"2 seeds": 2}),
        (
            [run("a"), run("b", stock=True), run("c", stock=True, seed=1)],
            {"fused": 1, "stock, 2 seeds": 2},
        ),
        ([run("a", lr=0.2), run("b", lr=0.4)], {"lr 0.2": 1, "lr 0.4": 1}),
        ([run("a"), run("b")], {"a": 1, "b": 1}),  # the same seed twice is not a band
        ([run("a"), run("b", model="resnet20")], {"resnet8": 1, "resnet20": 1}),
        ([run("a"), run("a")], {"a": 1, "a (a)": 1}),
    ],
)
def test_runs_that_differ_in_their_seed_are_one_curve(
    runs: list[Run], labels: dict[str, int]
) -> None:
    assert {label: len(group) for label, group in curves(runs).items()} == labels


@pytest.mark.parametrize(
    ("name", "message"),
    [("curves.xyz", "expected a picture's name"), ("nowhere/curves.png", "cannot write")],
)
def test_picture_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        plot_runs([run("a")], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_running_mean() -> None:
    assert running_mean([1.0, 2.0, 6.0, 3.0], 1) == [1.0, 2.0, 6.0, 3.0]
    assert running_mean([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, 11 / 3, 4.5]
    assert running_mean([5.0] * 9, 4) == [5.0] * 9
    assert running_mean([], 3) == []


def test_draws_raw_losses_mean_and_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    original = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *args, **kw: figures.append(self) or original(self, *args, **kw),
    )
    fused = run("f", (9.0, 8.0))
    stock = [run("s", (4.0, 2.0), stock=True), run("t", (6.0, 2.0, 1.0), stock=True, seed=1)]
    plot_runs([fused, *stock], tmp_path / "curves.png")
    by_step, by_epoch, _ = figures[0].axes
    lines = [list(line.get_ydata()) for line in by_step.lines]
    # Fused: raw and smooth; stock: two raw ones, then the mean over the steps that both have.
    assert lines == [[9, 8], [9, 8], [4, 2], [6, 2, 1], [5, 2]]
    (band,) = by_step.collections
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    assert {(1.0, 4.0), (1.0, 6.0), (2.0, 2.0)} <= corners
    assert by_step.get_legend_handles_labels()[1] == ["fused", "stock, 2 seeds"]
    assert "stock, 2 seeds test" in by_epoch.get_legend_handles_labels()[1]
