"""explain(): every layer once, the path it takes, the reason; the printed table."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from user_modules import CASES, C, Counter, KuangliuBlock, MutableList, RandomDepth, conv, image

from resnet_kernels import explain, fuse, models, unfuse
from resnet_kernels.ops.conv_kernel import SPLIT
from resnet_kernels.ops.library import fallback_counts

AMX = 4  # Isa::kAmx of csrc/cpu/isa.h


def test_covers_every_layer_once() -> None:
    model = fuse(nn.Sequential(CASES["sequential"].module(), KuangliuBlock(), nn.Conv1d(1, 1, 1)))
    layers = [name for row in explain(model).rows for name in row.layers if "(" not in name]
    kinds = (
        nn.Conv2d,
        nn.Conv1d,
        nn.BatchNorm2d,
        nn.GELU,
        nn.SiLU,
        nn.LeakyReLU,
        nn.ReLU6,
        nn.Hardswish,
    )
    expected = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    assert sorted(layers) == sorted(expected)


def test_says_what_fuse_would_do_before_fuse() -> None:
    model = models.resnet8(fused=False)
    state = {name: set(vars(module)) for name, module in model.named_modules()}
    explanation = explain(model)
    assert not explanation.fused
    assert {row.reason for row in explanation.rows} == {"fuse() was not called"}
    assert {name: set(vars(module)) for name, module in model.named_modules()} == state
    assert explain(fuse(model)).fused and not explain(unfuse(model)).fused


def strided() -> str:
    """What a strided convolution of 32 channels or more takes."""
    return SPLIT if torch.ops.resnet_kernels.cpu_isa() == AMX else "direct"


def test_convolution_kernels() -> None:
    said = {row.layers[0]: row.reason for row in explain(models.resnet8()).rows}
    assert said["layer2.0.conv1"] == "direct, Winograd F(2x2, 3x3)"  # from 16 channels
    assert said["layer3.0.conv1"] == f"{strided()}, Winograd F(2x2, 3x3)"
    reasons = {row.reason for row in explain(models.resnet18()).rows}
    assert reasons == {"direct", "Winograd F(2x2, 3x3)", f"{strided()}, Winograd F(2x2, 3x3)"}
    reasons = {row.reason for row in explain(models.resnet8().bfloat16()).rows}
    assert reasons == {"declared torch convolution"}


def test_winograd_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNK_CPU_CONV", "winograd4x4")
    reasons = {row.reason for row in explain(models.resnet18()).rows}
    assert reasons == {"direct", "Winograd F(4x4, 3x3)", f"{strided()}, Winograd F(4x4, 3x3)"}


def test_one_channel_images_are_torchs() -> None:
    """What explain() says of each layer is what a forward of the network calls."""
    model = models.resnet8(in_channels=1).eval()
    said = {row.layers[0]: row.reason for row in explain(model).rows}
    assert said.pop("conv1") == "declared torch convolution"
    assert "declared torch convolution" not in said.values()
    fallback_counts(reset=True)
    model(torch.randn(2, 1, 16, 16))
    assert sum(fallback_counts(reset=True).values()) == 1


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (RandomDepth, "RandomDepth.forward uses random (module random)"),
        (Counter, "Counter.forward writes state (calls)"),
        (CASES["no_grad_part"].module, "uses .no_grad"),
        (CASES["data_dependent"].module, "symbolically traced variables cannot be used"),
        (MutableList, "forward reads the mutable attribute order"),
        (lambda: nn.Sequential(conv(), nn.ReLU6()), "ReLU6 has no fused form"),
        (lambda: nn.Sequential(nn.ReLU(), conv()), "does not follow a convolution"),
        (CASES["conv_used_twice"].module, "its output is used more than once"),
    ],
)
def test_reasons(module: type[nn.Module], reason: str) -> None:
    reasons = [row.reason for row in explain(fuse(module())).unfused]
    assert any(reason in text for text in reasons), reasons


def test_hooks_and_replaced_children_show() -> None:
    model = fuse(KuangliuBlock())
    handle = model.bn2.register_forward_hook(lambda *args: None)
    rows = {row.layers: row for row in explain(model).rows}
    assert rows[("bn2",)].reason == "has hooks"
    handle.remove()
    assert [row.path for row in explain(model).rows] == ["basic_block (cpu)"]
    model.bn2 = nn.GroupNorm(2, 2 * C)
    assert "basic_block (cpu)" not in {row.path for row in explain(model).rows}


def test_changes_nothing() -> None:
    torch.manual_seed(0)
    model = models.resnet8(in_channels=C)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    explain(model)
    assert model.training and all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert len(model(image(8).float())) == 3


def test_table() -> None:
    lines = str(explain(fuse(KuangliuBlock()))).splitlines()
    assert lines[0].split() == ["layers", "path", "why"]
    names = "conv1, bn1, conv2, bn2, shortcut.0, shortcut.1"
    assert lines[2].startswith(f"{names}  basic_block (cpu)")
    nested = str(explain(fuse(nn.Sequential(KuangliuBlock()))))
    assert f"0.{{{names}}}" in nested
