"""A resumed run gives the bits of an unbroken one; checkpoints are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from resnet_kernels.cli import main
from resnet_kernels.training import loop
from resnet_kernels.training.checkpoint import load_checkpoint, save_checkpoint
from resnet_kernels.training.errors import UserError
from resnet_kernels.training.metrics import read_run

STEPS = 5  # of an epoch: 1437 pictures in batches of 256
OPTIONS = ["--model", "resnet8", "--epochs", "2", "--batch-size", "256", "--device", "cpu"]
TIMES = ("images_per_second", "seconds")


def train(out: Path, *more: str) -> int:
    return main(["train", *OPTIONS, "--out", str(out), *more])


def flat(value: object, path: str = "") -> dict[str, object]:
    """Leaves of nested dicts and lists by path."""
    if isinstance(value, dict):
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(i), v) for i, v in enumerate(value)]
    else:
        return {path: value}
    return {k: v for name, part in items for k, v in flat(part, f"{path}/{name}").items()}


def assert_same_state(a: Path, b: Path) -> None:
    """Weights, buffers, momenta, random state and metrics (but for the times) are bit-equal."""
    first, second = (flat(vars(load_checkpoint(run / "last.pt"))) for run in (a, b))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.endswith(TIMES):
            continue
        same = torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        assert same, name


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Presses Ctrl-C while step number `steps` of the process runs."""
    original, done = loop.Trainer._train_step, []

    def step(self: loop.Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        original(self, images, labels)
        done.append(1)
        if len(done) == steps:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Trainer, "_train_step", step)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    assert train(out) == 0
    return out


@pytest.mark.parametrize("steps", [2, STEPS, STEPS + 3], ids=["mid", "end-of-epoch", "second"])
def test_ctrl_c_and_resume_is_bit_equal(
    steps: int,
    unbroken: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps)
        assert train(tmp_path) == 130
    assert f"--resume {tmp_path / 'last.pt'}" in capsys.readouterr().out
    saved = load_checkpoint(tmp_path / "last.pt")
    assert saved.epoch * STEPS + saved.step == steps
    cut = (tmp_path / "steps.csv").read_text().splitlines()
    assert cut == (unbroken / "steps.csv").read_text().splitlines()[: steps + 1]
    torch.rand(7)  # a resumed run must not depend on the process's own random state
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert_same_state(tmp_path, unbroken)
    resumed, whole = read_run(tmp_path), read_run(unbroken)
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in resumed.epochs]
    assert rows == [{k: v for k, v in row.items() if k not in TIMES} for row in whole.epochs]
    assert (tmp_path / "steps.csv").read_bytes() == (unbroken / "steps.csv").read_bytes()


def test_global_random_state_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise on the pictures stands for dropout, which draws from the global generator."""
    original = loop.Trainer._train_step

    def noisy(self: loop.Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        original(self, images + 0.1 * torch.randn_like(images), labels)

    monkeypatch.setattr(loop.Trainer, "_train_step", noisy)
    assert train(tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert train(tmp_path / "cut") == 130
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    assert_same_state(tmp_path / "cut", tmp_path / "whole")


def test_other_seed_gives_other_weights(unbroken: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "--seed", "1", "--epochs", "1", "--warmup-epochs", "0") == 0
    first, second = (load_checkpoint(p / "last.pt").model for p in (unbroken, tmp_path))
    assert not torch.equal(first["layer1.0.conv1.weight"], second["layer1.0.conv1.weight"])


def test_ctrl_c_reaches_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "resnet_kernels", "train", *OPTIONS, "--epochs", "500"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with: resnet-kernels train --resume" in output
    assert load_checkpoint(tmp_path / "last.pt").config["epochs"] == 500


@pytest.mark.parametrize("message", ["disk full", "killed"])
def test_failed_write_keeps_the_old_checkpoint(
    message: str, unbroken: Path, tmp_path: Path
) -> None:
    saved = load_checkpoint(unbroken / "last.pt")
    path = tmp_path / "last.pt"
    save_checkpoint(saved, path)
    before = path.read_bytes()

    def half(content: object, file) -> None:
        file.write(b"half of a checkpoint")
        raise OSError(message) if message == "disk full" else KeyboardInterrupt

    with pytest.raises((OSError, KeyboardInterrupt)):
        save_checkpoint(saved, path, write=half)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_checkpoint_file_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "resnet20"], "--model: the checkpoint was trained with 'resnet8'"),
        (["--lr", "3"], "--lr: the checkpoint was trained with"),
        (["--epochs", "1"], "--epochs: the checkpoint has 2 epochs already"),
        (["--data", "cifar10"], "--data: the checkpoint was trained with 'digits'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_resume_refuses_what_contradicts(
    options: list[str], message: str, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (unbroken / "last.pt").read_bytes()
    assert main(["train", "--resume", str(unbroken), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (unbroken / "last.pt").read_bytes() == before


def test_weights_of_another_network_are_refused(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_checkpoint(unbroken / "last.pt")
    saved.config["model"] = "resnet20"
    save_checkpoint(saved, tmp_path / "last.pt")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "do not fit the model resnet20" in capsys.readouterr().err


def test_a_run_is_not_overwritten(unbroken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in unbroken.iterdir()}
    assert train(unbroken) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in unbroken.iterdir()} == before


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", None], ids=["empty", "text", "other"]
)
def test_bad_checkpoints_are_one_line(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pt"
    torch.save({"state_dict": {}}, path) if content is None else path.write_bytes(content)
    assert main(["train", "--resume", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(path) in error
