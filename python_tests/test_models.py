"""The model zoo: torchvision's keys and initial values, shapes, options, weights, names."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from model_checks import assert_same, twins
from resnet_kernels import explain, fuse, models, unfuse
from safetensors.torch import save_file
from torch import nn
from user_modules import image

IMAGENET = [name for name in models.names() if hasattr(torchvision.models, name)]
TINY = {"width": 8, "in_channels": 1, "num_classes": 3}


def on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return models.create(name, fused=False, **options)


def test_names_cover_the_families() -> None:
    assert len(IMAGENET) == 10
    small = {f"resnet{depth}" for depth in (20, 32, 44, 56, 110)}
    assert small | {"cifar_resnet18", "cifar_resnet152", "wrn28_10"} <= set(models.names())
    assert {"preact_resnet18", "cifar_preact_resnet152"} <= set(models.names())


@pytest.mark.parametrize("name", IMAGENET)
def test_state_dict_is_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    ours = on_meta(name)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(expected)
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    theirs.load_state_dict(ours.state_dict(), assign=True)
    ours.load_state_dict(theirs.state_dict(), assign=True)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_same_seed_gives_torchvisions_network(name: str) -> None:
    torch.manual_seed(3)
    ours = models.create(name, fused=False).double()
    torch.manual_seed(3)
    theirs = getattr(torchvision.models, name)().double()
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), key
    assert_same(theirs, fuse(ours), image(64, 3)[:2])


@pytest.mark.parametrize("name", models.names())
def test_depth_is_that_of_the_name(name: str) -> None:
    """The depth counts the main branch's convolutions and the classifier; WRN's the projections too."""
    wide = name.startswith("wrn")
    found = re.search(r"(?:resnet|resnext|wrn)(\d+)", name)
    depth = int(found[1]) if found else 16
    convs = [n for n, m in on_meta(name).named_modules() if isinstance(m, nn.Conv2d)]
    counted = [n for n in convs if wide or "downsample" not in n]
    assert len(counted) + (0 if wide else 1) == depth


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", 0.27), ("resnet32", 0.46), ("resnet56", 0.85), ("resnet110", 1.7),
        ("resnet18", 11.69), ("resnet50", 25.56), ("wide_resnet50_2", 68.88), ("wrn28_10", 36.5),
        ("cifar_resnet18", 11.17), ("preact_resnet18", 11.69),
    ],
)  # fmt: skip
def test_size_is_the_papers(name: str, millions: float) -> None:
    count = sum(p.numel() for p in on_meta(name).parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet8", TINY, 8),
        ("resnet20", {"num_classes": 3}, 8),
        ("cifar_resnet18", {"width": 8}, 8),
        ("resnet50", {"stem": "cifar", "width": 8, "num_classes": 7}, 8),
        ("resnet18", {"width": 8, "zero_init_residual": True}, 32),
        ("preact_resnet18", {"width": 8}, 32),
        ("cifar_preact_resnet50", {"width": 8}, 8),
        ("wrn", {"depth": 10, "widen": 2}, 8),
    ],
)
def test_fused_network_is_the_plain_one(name: str, options: dict[str, Any], size: int) -> None:
    torch.manual_seed(0)
    stock, fused = twins(models.create(name, fused=False, **options))
    assert_same(stock, fused, image(size, options.get("in_channels", 3)))


@pytest.mark.parametrize("name", models.names())
def test_every_block_is_fused(name: str) -> None:
    model = models.create(name, width=16, fused=False)
    blocks = [m for n, m in model.named_modules() if n.count(".") == 1 and n.startswith("layer")]
    rows = explain(fuse(model)).rows
    kinds = ("basic_block (cpu)", "bottleneck (cpu)", "preact_block (cpu)")
    assert sum(row.path in kinds for row in rows) == len(blocks) > 0
    left = [row.layers for row in explain(model).unfused]
    # A pre-activation network's first convolution has nothing to fuse with.
    assert left == ([("conv1",)] if "preact" in name or "wrn" in name else [])


def test_zero_init_residual() -> None:
    for name, bn in (("resnet18", "bn2"), ("resnet50", "bn3")):
        model = models.create(name, width=8, zero_init_residual=True)
        block = model.layer2[1]
        assert torch.count_nonzero(getattr(block, bn).weight) == 0
        x = image(4, block.conv1.in_channels).float().relu()
        assert torch.equal(block.eval()(x), x)


def test_dropout_of_wide_resnet() -> None:
    model = models.wrn(depth=10, widen=1, dropout=0.3)
    assert model.layer1[0].dropout.p == 0.3
    x = image(8, 3).float()
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_fused_flag() -> None:
    plain, fused = models.resnet8(fused=False), models.resnet8()
    assert not explain(plain).fused and explain(fused).fused
    assert [type(m) for m in unfuse(fused).modules()] == [type(m) for m in plain.modules()]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    source = models.resnet8(**TINY)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in source.state_dict().items()}, path)
    else:
        torch.save(source.state_dict(), path)
    loaded = models.resnet8(path, width=8, in_channels=1)
    for key, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_weights_from_a_checkpoint_of_a_wrapped_model(tmp_path: Path) -> None:
    source = models.resnet8(**TINY)
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pt")
    loaded = models.resnet8(str(tmp_path / "checkpoint.pt"), **TINY)
    assert torch.equal(loaded.fc.weight, source.fc.weight)


def test_weights_of_a_torchvision_enum(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18()
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(
        type(weights), "get_state_dict", lambda self, *args, **kwargs: theirs.state_dict()
    )
    loaded = models.resnet18(weights)
    assert torch.equal(loaded.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_weights_of_another_model_raise_one_error(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(models.resnet20(num_classes=3).state_dict(), path)
    with pytest.raises(ValueError, match="does not fit ResNet") as error:
        models.resnet8(path, **TINY)
    text = str(error.value)
    assert "unexpected: layer1.1.conv1.weight" in text and "more" in text
    assert "of another shape: conv1.weight: (16, 3, 3, 3) in the file, (8, 1, 3, 3)" in text
    assert len(text) < 600
    with pytest.raises(ValueError, match=r"missing: .*layer1\.1"):
        torch.save(models.resnet8().state_dict(), path)
        models.resnet20(path)


def test_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "list.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    calls: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "name: expected one of", lambda: models.create("resnet19")),
        (ValueError, "stem: expected one of", lambda: models.resnet18(stem="mnist")),
        (ValueError, "shortcut: expected one of", lambda: models.resnet18(shortcut="C")),
        (ValueError, "depth: expected 6n", lambda: models.wrn(depth=17)),
        (ValueError, "groups", lambda: models.resnet18(groups=2)),
        (ValueError, "base_width", lambda: models.resnext50_32x4d(width=8)),
        (FileNotFoundError, "weights", lambda: models.resnet18("no-such-file.pt")),
        (TypeError, "weights: expected a path", lambda: models.resnet18(3)),
        (ValueError, "expected a state_dict", lambda: models.resnet8(tmp_path / "list.pt")),
    ]
    for error, match, call in calls:
        with pytest.raises(error, match=match):
            call()


def test_importing_does_not_import_torchvision() -> None:
    import subprocess
    import sys

    code = "import sys, resnet_kernels.models; print('torchvision' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_networks_copy_with_their_blocks() -> None:
    model = models.resnet8(**TINY)
    copied = copy.deepcopy(model)
    x = image(8, 1).float()
    assert torch.equal(copied.eval()(x), model.eval()(x))
