"""Shortcut of every stride-th pixel with zero channels: torch's bits, from one pass each way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graph_tape import Tape
from model_checks import assert_same, twins
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

import resnet_kernels as rk
from resnet_kernels import models
from resnet_kernels.nn import BasicBlock, PadShortcut
from resnet_kernels.ops import pad_shortcut

OPS: Any = torch.ops.resnet_kernels
LAST = torch.channels_last
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# in channels, out channels, stride
GEOMETRIES = [(4, 8, 2), (5, 9, 1), (3, 8, 3), (16, 17, 2), (2, 3, 4)]


class Kernels:
    """The ops as pad_shortcut.py calls them, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        monkeypatch.setattr(pad_shortcut, "_OPS", self)

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name.removeprefix("pad_shortcut_"))
        return getattr(OPS, name)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    return Kernels(monkeypatch)


def image(n: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, c, h, w).to(dtype, memory_format=LAST)


def plain(x: Tensor, m: PadShortcut) -> Tensor:
    return F.pad(x[:, :, :: m.stride, :: m.stride], (0, 0, 0, 0, m.front, m.back))


def results(f: Any, x: Tensor, dz: Tensor, ddx: Tensor) -> list[Tensor]:
    """Output, gradient, and the second derivatives, by dz and by x, of what the gradient gives."""
    x, dz = x.detach().requires_grad_(), dz.detach().requires_grad_()
    z = f(x)
    (dx,) = torch.autograd.grad(z, x, dz, create_graph=True)
    ddx = ddx.detach().requires_grad_()
    (ddz,) = torch.autograd.grad(dx, dz, ddx, create_graph=True)
    (third,) = torch.autograd.grad(ddz, ddx, dz)
    (first,) = torch.autograd.grad(f(x), x, dz)
    return [z, dx, ddz, third, first]


def assert_equal(m: PadShortcut, x: Tensor, dz: Tensor | None = None) -> None:
    want = plain(x, m)
    got = m(x)
    assert torch.equal(got, want) and got.stride() == want.stride()
    dz = torch.randn(want.shape).to(x.dtype, memory_format=LAST) if dz is None else dz
    ddx = torch.randn(x.shape).to(x.dtype, memory_format=LAST)
    pairs = zip(results(m, x, dz, ddx), results(lambda t: plain(t, m), x, dz, ddx), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("c", "k", "stride"), GEOMETRIES)
def test_the_kernels_have_the_bits_of_torch(
    kernels: Kernels, c: int, k: int, stride: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    m = PadShortcut(c, k, stride)
    for n, h, w in ((2, 12, 12), (1, 12, 7), (3, 12, 1), (2, stride, 13), (1, stride, stride)):
        kernels.calls.clear()
        assert_equal(m, image(n, c, h, w, dtype))
        # One without a gradient; then there and back, there and back; then there and back.
        assert kernels.calls == ["fwd", *["fwd", "bwd"] * 3]


def test_rows_of_several_threads(kernels: Kernels) -> None:
    assert_equal(PadShortcut(16, 32, 2), image(16, 16, 32, 32))
    assert kernels.calls


def test_values_are_bits() -> None:
    """Infinities, NaN and negative zeros arrive, and none spreads to where zeros are."""
    x = image(1, 4, 4, 4)
    x[0, 0], x[0, 1], x[0, 2] = torch.inf, torch.nan, -0.0
    m = PadShortcut(4, 6, 2)
    z = m(x)
    assert torch.equal(z.view(torch.int32), plain(x, m).view(torch.int32))


@pytest.mark.parametrize(
    ("x", "k", "stride"),
    [
        (torch.randn(2, 4, 6, 6), 8, 2),
        (image(2, 4, 7, 6), 8, 2),  # of an odd height, torch's result is contiguous
        (image(2, 4, 1, 1), 8, 2),
        (image(0, 4, 6, 6), 8, 2),
        (image(2, 1, 6, 6), 3, 2),
        (image(2, 4, 6, 6), 4, 2),
        (image(2, 4, 6, 6), 3, 2),
        (image(2, 8, 6, 6)[:, :4], 8, 2),
        (image(2, 4, 6, 12)[..., ::2], 8, 2),
        (torch.randn(6, 6, 4).permute(2, 0, 1)[None], 8, 2),
    ],
    ids=["nchw", "odd", "pixel", "empty", "grey", "same", "fewer", "channels", "columns", "one"],
)
def test_others_are_left_to_torch(kernels: Kernels, x: Tensor, k: int, stride: int) -> None:
    assert_equal(PadShortcut(x.shape[1], k, stride), x)
    assert set(kernels.calls) <= {"fwd"}  # of second derivatives, whose ddx may be served
    kernels.calls.clear()
    PadShortcut(x.shape[1], k, stride)(x)
    assert not kernels.calls


def test_other_dtypes_and_devices_are_left_to_torch(kernels: Kernels) -> None:
    m = PadShortcut(4, 8, 2)
    x = image(2, 4, 6, 6)
    for other in (x.int(), x.to(torch.complex64)):
        assert torch.equal(m(other), plain(other, m))
    assert m(x.to("meta")).shape == (2, 8, 3, 3)
    with pytest.raises(ValueError, match="step"):
        PadShortcut(4, 8, 0)(x)
    assert not kernels.calls


@pytest.mark.parametrize("layout", ["nchw", "expanded", "slice", "transposed"])
def test_gradients_of_any_layout(kernels: Kernels, layout: str) -> None:
    torch.manual_seed(1)
    dz = {
        "nchw": torch.randn(2, 8, 4, 4),
        "expanded": torch.randn(2, 8, 1, 1).expand(2, 8, 4, 4),
        "slice": image(2, 20, 4, 4)[:, 3:11],
        "transposed": image(2, 8, 4, 4).transpose(2, 3),
    }[layout]
    assert_equal(PadShortcut(4, 8, 2), image(2, 4, 8, 8), dz)
    assert "bwd" in kernels.calls


def test_without_gradients(kernels: Kernels) -> None:
    m, x = PadShortcut(4, 8, 2), image(2, 4, 6, 6)
    want = plain(x, m)
    with torch.inference_mode():
        assert torch.equal(m(x), want)
    with torch.no_grad():
        z = m(x.requires_grad_())
    assert torch.equal(z, want) and not z.requires_grad
    assert kernels.calls == ["fwd", "fwd"]


def test_gradcheck() -> None:
    m = PadShortcut(3, 5, 2)
    x = image(1, 3, 4, 4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(m, x) and torch.autograd.gradgradcheck(m, x)


def test_recomputed(kernels: Kernels) -> None:
    m, x = PadShortcut(4, 8, 2), image(2, 4, 6, 6).requires_grad_()
    checkpoint(m, x, use_reentrant=False).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.autograd.grad(plain(x, m).sum(), x)[0])
    assert "bwd" in kernels.calls


def test_transforms_and_modes_see_torch(kernels: Kernels) -> None:
    m, x = PadShortcut(4, 8, 2), image(2, 4, 6, 6)
    t = torch.randn_like(x)
    for f in (
        lambda g: torch.func.jvp(g, (x,), (t,))[1],
        lambda g: torch.func.vmap(g)(torch.stack([x, t])),
        lambda g: torch.func.grad(lambda v: g(v).square().sum())(x),
    ):
        assert torch.equal(f(m), f(lambda v: plain(v, m)))
    with torch.autograd.forward_ad.dual_level():
        z = m(torch.autograd.forward_ad.make_dual(x, t))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(z)[1], plain(t, m))
    with Tape() as tape:
        m(x)
    assert tape is not None and not kernels.calls


def test_a_batch_of_gradients_and_a_mode_in_backward(kernels: Kernels) -> None:
    m, x = PadShortcut(4, 8, 2), image(2, 4, 6, 6).requires_grad_()
    dz = torch.randn(5, 2, 8, 3, 3)
    want = torch.stack([torch.autograd.grad(plain(x, m), x, g)[0] for g in dz])
    (dx,) = torch.autograd.grad(m(x), x, dz, is_grads_batched=True)
    assert torch.equal(dx, want)
    z = m(x)
    with Tape():
        (dx,) = torch.autograd.grad(z, x, dz[0])
    assert torch.equal(dx, want[0])
    assert kernels.calls == ["fwd", "fwd"]


def test_programs_hold_torch_ops(kernels: Kernels) -> None:
    m, x = PadShortcut(4, 8, 2), image(2, 4, 6, 6)
    want = plain(x, m)
    programs = [
        torch.compile(m, backend="aot_eager", fullgraph=True),
        torch.export.export(m, (x,), strict=True).module(),
        torch.export.export(m, (x,), strict=False).module(),
        torch.jit.script(m),
        torch.jit.trace(m, x, check_trace=False),
        fx.symbolic_trace(m),
    ]
    for program in programs:
        assert torch.equal(program(x), want)
        leaf = x.detach().requires_grad_()
        program(leaf).sum().backward()
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, torch.autograd.grad(plain(leaf, m).sum(), leaf)[0])
    assert not kernels.calls
    text = "".join(str(getattr(program, "graph", "")) for program in programs[1:])
    assert "resnet_kernels::" not in text and "resnet_kernels.pad" not in text


def test_onnx(kernels: Kernels, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    torch.onnx.export(PadShortcut(4, 8, 2).eval(), (image(2, 4, 6, 6),), file, dynamo=False)
    assert b"pad_shortcut" not in file.read_bytes() and not kernels.calls


def block(**kwargs: Any) -> BasicBlock:
    torch.manual_seed(0)
    return BasicBlock(4, 8, 2, PadShortcut(4, 8, 2), **kwargs)


def test_fused_models_take_the_kernels(kernels: Kernels) -> None:
    stock, fused = twins(block(fused=False))
    assert_same(stock, fused, image(3, 4, 8, 8, torch.float64), steps=2)
    kernels.calls.clear()
    model = models.resnet20(num_classes=10)
    x = torch.randn(2, 3, 32, 32).to(memory_format=LAST)
    model(x).sum().backward()
    assert sorted(kernels.calls) == ["bwd", "bwd", "fwd", "fwd"]
    kernels.calls.clear()
    with torch.no_grad():
        model.eval()(x)
    assert kernels.calls == ["fwd", "fwd"]


def test_hooks_and_subclasses_of_the_shortcut_run(kernels: Kernels) -> None:
    class Doubled(PadShortcut):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    for shortcut in (PadShortcut(4, 8, 2), Doubled(4, 8, 2)):
        model = BasicBlock(4, 8, 2, shortcut, fused=False)
        seen: list[nn.Module] = []
        shortcut.register_forward_hook(lambda module, *_, seen=seen: seen.append(module))
        stock, fused = twins(model)
        assert_same(stock, fused, image(3, 4, 8, 8, torch.float64))
        assert seen and rk.explain(fused).fused


def test_the_ops_refuse_what_they_cannot_take() -> None:
    x, dz = image(2, 4, 6, 6), image(2, 8, 3, 3)
    fwd, bwd = OPS.pad_shortcut_fwd, OPS.pad_shortcut_bwd
    for call, why in (
        (lambda: fwd(x.contiguous(), 2, 2, 2), "channels_last"),
        (lambda: fwd(x.int(), 2, 2, 2), "expected float32"),
        (lambda: fwd(x[0], 2, 2, 2), "channels_last"),
        (lambda: fwd(x, 0, 2, 2), "stride"),
        (lambda: fwd(x, 2, -1, 2), "front, back"),
        (lambda: fwd(image(2, 4, 0, 0), 2, 2, 2), "a pixel"),
        (lambda: bwd(dz, 6, 6, 2, 4, 4), "a channel"),
        (lambda: bwd(dz, 6, 7, 2, 2, 2), "3 x 4 pixels"),
        (lambda: bwd(dz.contiguous(), 6, 6, 2, 2, 2), "channels_last"),
    ):
        with pytest.raises(RuntimeError, match=why):
            call()
