"""What goes wrong in real life: kills, full disks, NaN, broken pictures; nothing is lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kill_runs import OPTIONS
from PIL import Image
from test_train_resume import assert_same_state

from resnet_kernels.cli import main
from resnet_kernels.training import loop
from resnet_kernels.training.checkpoint import load_checkpoint
from resnet_kernels.training.metrics import read_run

ROOT = Path(__file__).parents[1]
SHORT = ["train", "--model", "resnet8", "--batch-size", "480", "--device", "cpu"]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    return error


def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """SIGKILL at random moments, then resumed: weights, momenta and tables of an unbroken run."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(Path(__file__).with_name("kill_runs.py"))]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    subprocess.run([*script, "20", "3", str(broken)], check=True, env=environment, timeout=550)
    assert main([*OPTIONS, "--checkpoint-steps", "1", "--out", str(whole)]) == 0
    assert_same_state(broken, whole)
    assert (broken / "steps.csv").read_bytes() == (whole / "steps.csv").read_bytes()
    assert len(read_run(broken).epochs) == 8
    assert sorted(os.listdir(broken)) == sorted(os.listdir(whole))  # no half files are left


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    assert main([*SHORT, "--epochs", "2", "--warmup-epochs", "0", "--out", str(out)]) == 0
    return out


def copy_of(run: Path, to: Path) -> dict[str, bytes]:
    to.mkdir()
    content = {path.name: path.read_bytes() for path in run.iterdir()}
    for name, data in content.items():
        (to / name).write_bytes(data)
    return content


def test_full_disk_keeps_the_old_checkpoint(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for a disk that is full in the middle of the file."""
    run = tmp_path / "run"
    before = copy_of(trained, run)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["last.pt"]) // 2, limits[1]))
    try:
        assert main(["train", "--resume", str(run), "--epochs", "3"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"cannot write to {run}: [Errno 27] File too large" in one_line(capsys)
    assert (run / "last.pt").read_bytes() == before["last.pt"]
    assert sorted(os.listdir(run)) == sorted(before)
    assert load_checkpoint(run / "last.pt").epoch == 2


@pytest.mark.parametrize("interrupted", [False, True])
def test_nan_stops_and_keeps_the_last_good_checkpoint(
    interrupted: bool,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """NaN pictures in the second step of the third epoch; Ctrl-C must not save what they did."""
    run = tmp_path / "run"
    before = copy_of(trained, run)
    original = loop.Trainer._train_step

    def step(self: loop.Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        original(self, images * float("nan") if self.step == 1 else images, labels)
        if interrupted and self.step == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Trainer, "_train_step", step)
    assert main(["train", "--resume", str(run), "--epochs", "3"]) == 2
    # An epoch has two steps of 480 pictures; the rest is left out.
    assert "the loss (nan) is not finite after step 6, in epoch 3" in one_line(capsys)
    assert (run / "last.pt").read_bytes() == before["last.pt"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [("truncated", "cannot read the checkpoint"), ("bits", "cannot read the checkpoint")],
)
def test_damaged_checkpoint_is_refused_by_all_commands(
    damage: str,
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    data = copy_of(trained, run)["last.pt"]
    half = len(data) // 2
    data = data[:half] if damage == "truncated" else b"PK" + os.urandom(half)
    (run / "last.pt").write_bytes(data)
    capsys.readouterr()
    for command in (
        ["train", "--resume", str(run)],
        ["eval", "--run", str(run)],
        ["predict", "--run", str(run), "x.png"],
        ["export", "--run", str(run), "--out", str(tmp_path / "x.pt2")],
        ["explain", "--run", str(run)],
    ):
        assert main(command) == 2
        assert message in one_line(capsys)
    assert (run / "last.pt").read_bytes() == data
    assert not (tmp_path / "x.pt2").exists()


def folders(root: Path, side: int) -> Path:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.mark.parametrize("side", [16, 80])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("empty class", "bee"),
        ("no picture", "cannot read the picture"),
        ("half a picture", "cannot read the picture"),
        ("no test folder", "should hold train/<class>/ and test/<class>/"),
        ("another class", "hold different classes: cat"),
        ("wrong number", "--num-classes: pictures has 2 classes, got 3"),
    ],
)
def test_broken_folders_are_one_line(
    case: str, message: str, side: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folders(tmp_path / "pictures", side)
    picture = root / "train" / "bee" / "3.png"
    if case == "empty class":
        for path in (root / "train" / "bee").iterdir():
            path.unlink()
    elif case == "no picture":
        picture.write_text("no picture")
    elif case == "half a picture":
        picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    elif case == "no test folder":
        (root / "test").rename(root / "Test")
    elif case == "another class":
        (root / "test" / "cat").mkdir()
        Image.new("RGB", (side, side)).save(root / "test" / "cat" / "0.png")
    options = ["--data", str(root), "--model", "resnet8", "--epochs", "1", "--batch-size", "4"]
    options += ["--size", "32", "--workers", "1"] if side == 80 else []
    options += ["--num-classes", "3"] if case == "wrong number" else []
    out = tmp_path / "run"
    assert main(["train", *options, "--device", "cpu", "--out", str(out)]) == 2
    assert message in one_line(capsys)
    assert not (out / "last.pt").exists()
