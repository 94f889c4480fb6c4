"""The command line: exit codes, one-line errors, info, explain, plot, and what an import needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_kernels.cli import main
from resnet_kernels.training.metrics import COLUMNS, STEP_COLUMNS, write_metrics

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "resnet1"], "--model: expected one of resnet18"),
        (["train", "--data", "nowhere"], "--data: expected digits, cifar10, cifar100 or a folder"),
        (["train", "--lr", "fast"], "'fast' is not a valid float"),
        (["train", "--device", "tpu"], "--device: expected cpu, cuda"),
        (["train", "--device", "cuda:99"], "--device: cuda:99 is not there"),
        (["train", "--epochs", "0"], "--epochs: expected at least 1"),
        (["train", "--threads", "-1"], "--threads: expected at least 0, got -1"),
        (["train", "--workers", "-1"], "--workers: expected at least 0"),
        (["train", "--size", "-5"], "--size: expected at least 0"),
        (["train", "--lr", "nan"], "--lr: expected a number above 0, got nan"),
        (["train", "--lr", "-1"], "--lr: expected a number above 0"),
        (["train", "--momentum", "1"], "--momentum: expected at least 0 and below 1"),
        (["train", "--weight-decay", "-1"], "--weight-decay: expected a number of at least 0"),
        (["train", "--label-smoothing", "1.5"], "--label-smoothing: expected at least 0"),
        (["train", "--seed", "-1"], "--seed: expected at least 0 and below 2^32"),
        (["train", "--seed", "1e9"], "'1e9' is not a valid integer"),
        (["train", "--seed", str(2**70)], "--seed: expected at least 0"),
        (["bench", "step", "--threads", "-1"], "-1 is not in the range"),
        (["explain", "--model", "resnet8", "--num-classes", "0"], "0 is not in the range"),
        (["train", "--resume", "nowhere.pt"], "no checkpoint at nowhere.pt"),
        (["explain", "--model", "resnet1"], "--model: expected one of"),
        (["bench", "step", "--model", "resnet1"], "--model: expected one of"),
        (["plot", "nowhere"], "no metrics.csv in nowhere"),
        (["dance"], "No such command 'dance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("train", "bench", "explain", "info", "plot"):
        assert f"\n  {command} " in text


def test_info_names_torch(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["info"]) == 0
    assert f"torch: {torch.__version__}" in capsys.readouterr().out


def test_explain_covers_every_convolution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", "resnet8", "--num-classes", "10"]) == 0
    text = capsys.readouterr().out
    for layer in ("conv1", "layer1.0", "layer2.0", "layer3.0"):
        assert layer in text


def test_plot_draws_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        rows = [dict.fromkeys(COLUMNS, float(epoch)) for epoch in (1, 2, 3)]
        write_metrics(rows, [dict.fromkeys(STEP_COLUMNS, 1)], tmp_path / run)
        (tmp_path / run / "config.json").write_text('{"model": "resnet8", "seed": 0}')
    out = tmp_path / "both.png"
    assert main(["plot", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damaged", "content", "message"),
    [
        ("steps.csv", None, "no steps.csv in"),
        ("steps.csv", "step,epoch\n1,1\n", "steps.csv: KeyError('lr')"),
        ("metrics.csv", "epoch\nx\n", "cannot read"),
        ("metrics.csv", ",".join(COLUMNS) + "\n", "has no finished epoch"),
        ("config.json", None, "no config.json in"),
        ("config.json", "{", "config.json: Expecting property name"),
        ("config.json", "[]", "config.json: expected settings by name"),
    ],
)
def test_plot_of_a_damaged_run_is_one_line(
    damaged: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_metrics([dict.fromkeys(COLUMNS, 1)], [dict.fromkeys(STEP_COLUMNS, 1)], tmp_path)
    (tmp_path / "config.json").write_text("{}")
    if content is None:
        (tmp_path / damaged).unlink()
    else:
        (tmp_path / damaged).write_text(content)
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "curves.png")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "curves.png").exists()


def test_module_and_import_need_no_command_line_packages() -> None:
    code = (
        "import sys, resnet_kernels\n"
        "loaded = {'click', 'rich', 'matplotlib', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    done = subprocess.run(
        [sys.executable, "-m", "resnet_kernels", "train", "--data", "nowhere"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --data")
