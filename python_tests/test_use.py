"""What is done with a trained network: eval, predict, gradcam, export, explain, TensorBoard."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resnet_kernels import models
from resnet_kernels.cli import main
from resnet_kernels.training.gradcam import heat_map, last_stage
from resnet_kernels.training.trained import as_batch, fitted, load_trained, read_picture


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    options = ["--model", "resnet8", "--epochs", "3", "--device", "cpu", "--tensorboard"]
    assert main(["train", *options, "--batch-size", "128", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The digits 0 to 9 as the data set has them, doubled."""
    from sklearn.datasets import load_digits

    folder, data = tmp_path_factory.mktemp("scans"), load_digits()
    for digit in range(10):
        picture = Image.fromarray((data.images[digit] * 15.9375).astype(np.uint8))
        picture.resize((16, 16), Image.Resampling.BILINEAR).save(folder / f"{digit}.png")
    return sorted(folder.iterdir())


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_eval_is_the_last_test_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "confusion.png"
    command = ("eval", "--run", run, "--device", "cpu")
    found = json.loads(output(capsys, *command, "--json", "--confusion", picture))
    with (run / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert found["accuracy"] == pytest.approx(float(last["test_accuracy"]), abs=1e-5)
    assert found["loss"] == pytest.approx(float(last["test_loss"]), rel=1e-4)
    confusion = torch.tensor(found["confusion"])
    assert int(confusion.sum()) == found["seen"] == 360
    assert int(confusion.trace()) == found["correct"]
    assert found["classes"]["3"] == pytest.approx(float(confusion[3, 3] / confusion[3].sum()))
    assert found["accuracy"] <= found["top5"] <= 1
    assert Image.open(picture).size[0] > 400
    assert f"({found['correct']}/360)" in output(capsys, *command)


def test_eval_of_other_data_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / split / "cat" / "0.png")
    assert main(["eval", "--run", str(run), "--data", str(tmp_path), "--device", "cpu"]) == 2
    assert "has other classes than the run: ['cat'], expected" in capsys.readouterr().err


def test_predict(run: Path, scans: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    command = ("predict", *scans, "--run", run, "--device", "cpu", "--top-k", "2")
    found = json.loads(output(capsys, *command, "--json"))
    assert [entry["image"] for entry in found] == [str(path) for path in scans]
    first = [entry["classes"][0]["class"] for entry in found]
    assert sum(name == str(digit) for digit, name in enumerate(first)) >= 5
    for entry in found:
        shares = [part["probability"] for part in entry["classes"]]
        assert len(shares) == 2
        assert 1 >= shares[0] >= shares[1] >= 0
    lines = output(capsys, *command).splitlines()
    assert lines[0].split() == ["image", "1.", "2."]
    assert lines[4].startswith(f"{scans[3]}  {first[3]} ")


def test_pictures_of_another_size_and_mode_are_fitted(run: Path, tmp_path: Path) -> None:
    trained = load_trained(run, "cpu")
    Image.new("RGBA", (50, 30), (255, 255, 255, 255)).save(tmp_path / "wide.png")
    picture = fitted(read_picture(tmp_path / "wide.png"), trained.info)
    assert (picture.size, picture.mode) == ((16, 16), "L")
    batch = as_batch([picture], trained.info, "cpu")
    expected = (1 - trained.info.mean[0]) / trained.info.std[0]
    torch.testing.assert_close(batch, torch.full((1, 1, 16, 16), expected))


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "cifar_preact_resnet18"])
def test_heat_map_is_the_formula(name: str) -> None:
    """Fused and stock, by autograd on the stock network cut in two after its last stage."""
    torch.manual_seed(0)
    stock = models.create(name, fused=False).eval()
    fused = models.create(name).eval()
    fused.load_state_dict(stock.state_dict())
    images = torch.randn(2, 3, 16, 16)
    parts: list[torch.Tensor] = []
    hook = last_stage(stock).register_forward_hook(lambda m, a, out: parts.append(out))
    score = stock(images)[torch.arange(2), torch.tensor([1, 4])].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, parts[0])
    heat = (gradient.mean((2, 3), keepdim=True) * parts[0]).sum(1, keepdim=True).relu()
    heat = nn.functional.interpolate(heat, (16, 16), mode="bilinear")[:, 0].detach()
    expected = heat / heat.amax((1, 2), keepdim=True)
    for model in (stock, fused):
        actual = heat_map(model, images, torch.tensor([1, 4]))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
    assert not last_stage(fused)._forward_hooks


def test_gradcam_draws_pictures(
    run: Path, scans: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gradcam.png"
    command = ("gradcam", *scans[:5], "--run", run, "--device", "cpu", "--out", out)
    text = output(capsys, *command, "--target", "7")
    assert [line.split()[1] for line in text.splitlines()[:-1]] == ["7"] * 5
    width, height = Image.open(out).size
    assert width > height > 300
    assert main([*map(str, command), "--target", "eleven"]) == 2
    assert "--target: expected a class of digits, got 'eleven'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "stock"), [("net.pt2", False), ("net.pt2", True), ("net.onnx", 0)]
)
def test_export_computes_the_same_elsewhere(
    name: str, stock: bool, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    options = ("--stock",) if stock else ()
    text = output(capsys, "export", "--run", run, "--out", out, "--device", "cpu", *options)
    assert text.startswith(f"wrote {out}: ")
    images = torch.randn(5, 1, 16, 16)  # of a batch size that the export did not see
    with torch.no_grad():
        expected = load_trained(run, "cpu").model(images)
    if name.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(out))
        actual = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    else:
        program = torch.export.load(str(out))
        actual = program.module()(images)
        ops = [str(node.target) for node in program.graph.nodes]
        assert any("resnet_kernels" in op for op in ops) != stock
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--run", "RUN", "nowhere.png"], "no picture nowhere.png"),
        (["predict", "--run", "RUN", "RUN/metrics.csv"], "cannot read the picture"),
        (["gradcam", "--run", "RUN", "nowhere.png"], "no picture nowhere.png"),
        (["predict", "x.png"], "--run: no run in runs/"),
        (["predict", "--run", "RUN"], "Missing argument 'IMAGES...'"),
        (["eval", "--run", "nowhere"], "no checkpoint at nowhere"),
        (["eval", "--run", "RUN", "--confusion", "x.xyz"], "expected a picture's name"),
        (["export", "--run", "RUN", "--out", "x.h5"], "--out: expected a name with .pt2 or .onnx"),
        (["explain"], "expected --model or --run"),
        (["train", "--cuda-graph", "--device", "cpu"], "--cuda-graph: needs a CUDA device"),
        (["train", "--freeze", "backbone"], "--freeze backbone: needs --init"),
        (["train", "--recompute", "stage", "--stock"], "--recompute: needs the fused model"),
        (["train", "--ema", "1"], "--ema: expected at least 0 and below 1"),
        (["train", "--num-classes", "11"], "--num-classes: digits has 10 classes, got 11"),
        (
            ["train", "--data", "cifar100", "--data-dir", "no"],
            "--data cifar100: no usable cifar-100",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_code_2(
    arguments: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from torchvision.datasets import cifar

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(cifar, "download_and_extract_archive", offline)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main([argument.replace("RUN", str(run)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_explain_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "explain", "--run", run)
    assert "layer3.0.{conv1, bn1, relu, conv2, bn2}" in text


def test_tensorboard_has_every_step(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    with (run / "steps.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [e.value for e in events.Scalars("step/loss")] == pytest.approx(losses, rel=1e-4)
    assert len(events.Scalars("epoch/test_accuracy")) == 3
