"""Filters that inference keeps packed on the CPU: same bits, and never those of an old filter."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import resnet_kernels as rk
from resnet_kernels import models
from resnet_kernels.ops import conv_act
from resnet_kernels.ops.packed_filter import packed_filters

# (C, H, W, K, kernel, stride, padding, groups): few channels; Winograd; direct by rows and, with
# few of them, by columns; a stem; more than one block of the depth; groups.
SHAPES = [
    (16, 9, 8, 16, 3, 1, 1, 1),
    (35, 7, 7, 70, 3, 1, 1, 1),
    (65, 30, 20, 33, 1, 1, 0, 1),
    (65, 5, 4, 33, 1, 2, 0, 1),
    (3, 40, 40, 64, 7, 2, 3, 1),
    (130, 8, 8, 17, 3, 2, 1, 1),
    (32, 24, 24, 48, 3, 1, 1, 2),
]


def layer(shape: tuple[int, ...]) -> tuple[Tensor, nn.Conv2d]:
    c, h, w, k, kernel, stride, padding, groups = shape
    torch.manual_seed(c + h)
    conv = nn.Conv2d(c, k, kernel, stride, padding, groups=groups)
    x = torch.randn(2, c, h, w)
    return (t.to(memory_format=torch.channels_last) for t in (x, conv))  # type: ignore[return-value]


@torch.no_grad()
def run(x: Tensor, conv: nn.Conv2d, weight: Tensor | None = None) -> Tensor:
    """The layer; by its parameter, or by another tensor, which is packed at every call."""
    w = conv.weight if weight is None else weight
    geometry = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups}
    return conv_act(x, w, conv.bias, act=None, **geometry)


def fresh(x: Tensor, conv: nn.Conv2d) -> Tensor:
    return run(x, conv, conv.weight.detach().clone(memory_format=torch.preserve_format))


def served(x: Tensor, conv: nn.Conv2d) -> int:
    """Calls of three that take a packed filter; all of them must have the right bits."""
    before = packed_filters()["served"]
    for _ in range(3):
        assert torch.equal(run(x, conv), fresh(x, conv))
    return packed_filters()["served"] - before


@pytest.mark.parametrize(
    ("shape", "choice"), [*((s, "own") for s in SHAPES), (SHAPES[1], "winograd4x4")], ids=str
)
def test_same_bits(shape: tuple[int, ...], choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNK_CPU_CONV", choice)
    x, conv = layer(shape)
    assert served(x, conv) == 2  # the first call only meets the filter
    # Images of another size take the same packed filter; an empty batch needs none.
    assert served(x[:1, :, :4, :3].contiguous(memory_format=torch.channels_last), conv) == 3
    assert run(x[:0], conv).shape[0] == 0
    assert served(x, conv) == 3


@pytest.mark.usefixtures("no_garbage")
def test_every_kernel_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One parameter under F(2x2), F(4x4) and torch in turn."""
    others = packed_filters()["bytes"]
    x, conv = layer(SHAPES[1])
    found, size = {}, {}
    for choice in ("own", "winograd4x4", "own", "torch", "winograd4x4", "auto"):
        monkeypatch.setenv("RNK_CPU_CONV", choice)
        assert served(x, conv) == (0 if choice == "torch" else 2)
        y = run(x, conv)
        assert torch.equal(found.setdefault(choice, y), y)
        size[choice] = packed_filters()["bytes"] - others
    assert 36 * size["own"] == 16 * size["winograd4x4"] > 0
    # In turn, each call meets the other's filter, and never takes it.
    for choice in ("own", "winograd4x4") * 2:
        monkeypatch.setenv("RNK_CPU_CONV", choice)
        assert torch.equal(run(x, conv), found[choice])
    assert torch.equal(found["own"], found["auto"])
    assert not torch.equal(found["own"], found["winograd4x4"])


def test_depthwise_filters_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNK_CPU_CONV", "own")
    x, conv = layer((32, 8, 8, 32, 3, 1, 1, 32))
    assert served(x, conv) == 0


def change_version(w: nn.Parameter) -> None:
    with torch.no_grad():
        w[0, 0, 0, 0] += 1


def change_data(w: nn.Parameter) -> None:
    w.data.mul_(-0.5)


def change_numpy(w: nn.Parameter) -> None:
    w.detach().numpy()[...] += 0.25


def change_memory(w: nn.Parameter) -> None:
    w.data = torch.randn_like(w)


def change_format(w: nn.Parameter) -> None:
    w.data = w.data.contiguous()


CHANGES = [change_version, change_data, change_numpy, change_memory, change_format]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SHAPES[1:3], ids=str)
def test_a_changed_filter_is_packed_anew(shape: tuple[int, ...], change) -> None:
    x, conv = layer(shape)
    assert served(x, conv) == 2
    for _ in range(2):
        before = run(x, conv)
        change(conv.weight)
        assert served(x, conv) == 2 or change is change_format
        assert change is change_format or not torch.equal(run(x, conv), before)


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Filters of other tests' models that wait for the collector are not freed in between."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage")
def test_training_keeps_none() -> None:
    x, conv = layer(SHAPES[1])
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    run(x, conv)
    kept = packed_filters()
    for _ in range(3):
        optimizer.step()
        y = conv_act(x, conv.weight, conv.bias, act=None, padding=1)
        assert torch.equal(y, fresh(x, conv))
        y.square().mean().backward()
    assert packed_filters()["filters"] == kept["filters"]
    assert packed_filters()["served"] <= kept["served"] + 1  # the first step has no gradient


def test_filters_of_inference_mode_are_not_kept() -> None:
    """They have no versions."""
    with torch.inference_mode():
        x, conv = layer(SHAPES[1])
        assert served(x, conv) == 0


def test_freed_with_the_parameter() -> None:
    gc.collect()
    before = packed_filters()
    x, conv = layer(SHAPES[1])
    shared = nn.Parameter(conv.weight.data)  # the same memory
    assert served(x, conv) == 2
    # 70 filters fill a part of the last panel.
    assert packed_filters()["bytes"] - before["bytes"] >= 4 * 16 * 35 * 70
    conv.weight = shared
    assert served(x, conv) == 2
    del conv, shared
    gc.collect()
    after = packed_filters()
    assert {**after, "served": 0} == {**before, "served": 0}


class _Refuses(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} under a mode")


class _RefusesDispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} under a mode")


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("mode", [_Refuses, _RefusesDispatch])
def test_freed_while_something_traces(mode: type, recwarn: pytest.WarningsRecorder) -> None:
    x, conv = layer(SHAPES[1])
    assert served(x, conv) == 2
    before = packed_filters()["filters"]
    with mode():
        del conv
    assert packed_filters()["filters"] == before - 1
    assert not recwarn.list


def test_another_parameter_in_freed_memory_is_another() -> None:
    """One filter after the other, of which a sample of values sees little."""
    x, conv = layer(SHAPES[2])
    for i in range(6):
        weight = torch.zeros(conv.weight.shape)
        weight[i, 2 * i + 1] = 1.0
        conv.weight = nn.Parameter(weight)
        served(x, conv)


@pytest.mark.parametrize("choice", ["auto", "winograd4x4"])
def test_whole_models_by_several_threads(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNK_CPU_CONV", choice)
    model = models.resnet18(num_classes=10).eval().to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    found: list[Tensor] = []

    def infer() -> None:
        with torch.no_grad():
            found.extend(model(images) for _ in range(3))

    threads = [threading.Thread(target=infer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 9
    assert all(torch.equal(out, found[0]) for out in found)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model)(images), found[0])
        torch.testing.assert_close(rk.unfuse(model)(images), found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("no_garbage")
def test_compiled_code_keeps_none() -> None:
    x, conv = layer(SHAPES[1])
    compiled = torch.compile(run, fullgraph=True)
    kept = packed_filters()
    for _ in range(3):
        assert torch.equal(compiled(x, conv), fresh(x, conv))
    assert packed_filters() == kept
