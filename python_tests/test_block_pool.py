"""The memory that CPU ops keep for the tensors they return: reused, bounded, never a live one's."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from resnet_kernels import models
from resnet_kernels.ops import empty_cache, max_pool
from resnet_kernels.training.network import create_network

OPS: Any = torch.ops.resnet_kernels
MIB = 1 << 20


def used() -> int:
    return int(OPS.pool_sizes()[0])


def kept() -> int:
    return int(OPS.pool_sizes()[1])


def fresh() -> int:
    return int(OPS.pool_sizes()[3])


def output(mebibytes: float, memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    """What an op returns, [N, 16, 32, 32] fp32."""
    n = int(mebibytes * MIB) // (4 * 16 * 32 * 32)
    y = torch.randn(n, 16, 32, 32).to(memory_format=memory_format)
    out: Tensor = OPS.bn_act_fwd(y, torch.ones(16), torch.zeros(16), None, None, None, 0, 0.0)
    assert torch.equal(out, y)
    return out


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    gc.collect()
    empty_cache()
    before = used()
    yield
    gc.collect()
    assert used() == before  # nothing is lost


def test_a_freed_tensors_memory_is_the_next_ones() -> None:
    first = output(4)
    address, count, inside = first.data_ptr(), fresh(), used()
    del first
    assert (used(), kept()) == (inside - 4 * MIB, 4 * MIB)
    again = output(4)
    assert (again.data_ptr(), fresh(), used(), kept()) == (address, count, inside, 0)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_strides_are_those_of_torch(memory_format: torch.memory_format) -> None:
    out = output(2, memory_format)
    assert out.stride() == torch.empty(out.shape, memory_format=memory_format).stride()
    assert out.is_contiguous(memory_format=memory_format)
    mask = OPS.bn_act_fwd_mask(
        torch.randn(64, 64, 32, 32), torch.ones(64), torch.zeros(64), None, None, None, 1, 0.0
    )[1]
    assert mask.shape == (64 * 64 * 32 * 32 // 8,)
    assert mask.is_contiguous()


def test_a_live_tensors_memory_is_nobody_elses() -> None:
    first = output(4)
    copy, view = first.clone(), first[1:3]
    del first  # the view has it
    others = [output(4) for _ in range(3)]
    empty_cache()
    assert len({t.untyped_storage().data_ptr() for t in (view, *others)}) == 4
    assert torch.equal(view, copy[1:3])


def test_small_tensors_are_torchs_own() -> None:
    before = used()
    out = output(0.125)
    assert used() == before
    assert out.numel() > 0


def test_what_is_kept_is_bounded_by_what_was_in_use() -> None:
    """Ever new sizes one after the other: the ones given back longest ago are freed."""
    sizes = [2.0 + i / 4 for i in range(24)]
    for size in sizes:
        output(size)
    assert kept() <= 2 * max(sizes) * MIB
    held = [output(2) for _ in range(8)]
    del held
    for size in sizes:
        output(size)
    assert 8 * MIB < kept() <= 2 * 16 * MIB


def test_empty_cache_gives_all_of_it_back() -> None:
    first, second = output(4), output(2)
    del first
    empty_cache()
    assert kept() == 0
    del second
    assert kept() == 2 * MIB
    empty_cache()
    assert kept() == 0


def test_a_tensor_may_die_in_another_thread() -> None:
    tensors = [output(2) for _ in range(8)]
    before = kept()
    threads = [threading.Thread(target=tensors.pop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept() == before + 16 * MIB


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNK_CPU_POOL", "0")
    before = used()
    out = output(4)
    assert used() == before
    assert out.numel() > 0


def test_what_users_do_with_tensors() -> None:
    """Saved, shared with numpy and other processes, written in place, with gradients."""
    out = output(2)
    buffer = io.BytesIO()
    torch.save(out, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer), out)
    assert out.numpy().ctypes.data == out.data_ptr()
    copy = out.clone()
    assert torch.equal(out.share_memory_(), copy)
    assert out.is_shared()
    x = output(2).requires_grad_()
    max_pool(x, 2).square().sum().backward()
    assert x.grad is not None
    x.grad.zero_()
    with pytest.raises(RuntimeError, match="not resizable"):
        output(2).resize_(1 << 24)


def step(model: torch.nn.Module, images: Tensor) -> None:
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 10).backward()


@pytest.mark.parametrize("name", ["resnet20", "cifar_resnet18"])
def test_a_training_step_asks_the_system_for_nothing(name: str) -> None:
    torch.manual_seed(0)
    model = create_network(name, 10, 3, True).to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 32, 32).to(memory_format=torch.channels_last)
    for _ in range(4):
        step(model, images)
    before = fresh()
    for _ in range(3):
        step(model, images)
    assert fresh() == before
    used_bytes, kept_bytes, most, _ = OPS.pool_sizes()
    assert used_bytes + kept_bytes <= 2 * most
    assert isinstance(model, models.ResNet)
