"""Tests on a GPU's tensors: how they get there and back, and that nothing stays behind."""

from __future__ import annotations

import backends
import public_ops
import pytest
import torch
from backends import Mover
from test_opcheck import sample_inputs
from torch._subclasses import FakeTensorMode

from resnet_kernels import reference
from resnet_kernels.ops.schemas import SCHEMAS

SIZE = (2, 4, 6, 5)


@pytest.fixture
def fake_gpu(monkeypatch):
    """The running test's device is a GPU whose tensors have no values; no GPU is needed."""
    monkeypatch.setattr(backends, "_device", torch.device("cuda"))
    with FakeTensorMode():
        yield


def on_fake_gpu(tensors):
    return {t.device.type for t in tensors if isinstance(t, torch.Tensor)} == {"cuda"}


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_definition_stays_on_its_device(name, layout, fake_gpu):
    """What cuDNN's error is measured with: FakeTensorMode raises where devices mix."""
    for args in sample_inputs(SIZE, layout, torch.float32)[name]:
        if name == "max_pool_fwd":
            args = (*args[:-1], False)
        result = getattr(reference, name)(*args)
        assert on_fake_gpu([result] if isinstance(result, torch.Tensor) else result)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("name", public_ops.CALLS)
def test_a_public_op_stays_on_its_device(name, backend, training, rng, fake_gpu):
    t = public_ops.tensors_for(rng)
    act = {} if name.endswith("_pool") else {"act": "relu"}
    assert on_fake_gpu([*t.values(), public_ops.CALLS[name](t, training, **act, backend=backend)])


def test_a_moved_tensor_lies_as_before():
    """Strides, offset and shared memory; meta stands for the GPU."""
    whole = torch.arange(64.0)
    views = [whole[3:].as_strided((2, 3, 4), (1, 12, 3), 5), whole[8:16], whole.view(8, 8).t()]
    move = Mover(torch.device("meta"))
    moved = [move(view) for view in views]
    for view, there in zip(views, moved, strict=True):
        assert there.device.type == "meta"
        assert (there.shape, there.stride()) == (view.shape, view.stride())
        assert there.storage_offset() == view.storage_offset()
        assert there.untyped_storage().nbytes() == whole.untyped_storage().nbytes()
    assert move(7) == 7 and move(None) is None


def test_what_an_op_writes_comes_back(monkeypatch):
    """Copies stand for the tensors on a GPU."""
    monkeypatch.setattr(backends, "on_gpu", lambda: True)
    monkeypatch.setattr(backends, "Mover", lambda to: lambda value: value.clone())

    def add(x, y):
        y += x
        return x + y

    for writes, expected in (((), 1.0), ((1,), 2.0)):
        x, y = torch.ones(6)[::2], torch.ones(3)
        assert torch.equal(backends.placed(add, writes)(x, y), torch.full((3,), 3.0))
        assert torch.equal(y, torch.full((3,), expected))


@pytest.mark.parametrize(("value", "names"), [("", []), ("cuda  triton", ["cuda", "triton"])])
def test_selection(value, names, monkeypatch):
    monkeypatch.setenv(backends.SELECTION, value)
    assert backends.selected() == names
    if names:
        assert backends.available() == backends.of_public_ops() == names


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv(backends.SELECTION, "cuda gpu")
    with pytest.raises(ValueError, match=r"RNK_TEST_BACKENDS: .* got \['gpu'\]"):
        backends.selected()
