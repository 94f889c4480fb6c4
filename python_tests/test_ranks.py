"""Runs of two processes under torchrun: the result of one, a process that dies, who does what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_data import picture_tree
from torch import nn

from resnet_kernels import fuse, models
from resnet_kernels.cli import main
from resnet_kernels.training.checkpoint import load_checkpoint
from resnet_kernels.training.config import TrainConfig
from resnet_kernels.training.data import open_data
from resnet_kernels.training.metrics import read_run
from resnet_kernels.training.ranks import Ranks

ROOT = Path(__file__).parents[1]
# 255 pictures a step: 128 for one process and 127 for the other. A small learning rate keeps the
# differences of rounding small; at 0.1 they grow fiftyfold a step, with any two ways to sum.
OPTIONS = ("train", "--model", "resnet8", "--epochs", "2", "--batch-size", "255", "--lr", "0.002")
OPTIONS += ("--warmup-epochs", "0", "--threads", "1", "--device", "cpu")


def torchrun(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*command, "--standalone", "-m", "resnet_kernels", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    process = torchrun(*OPTIONS, "--ema", "0.5", "--out", str(tmp_path / "two"))
    assert main([*OPTIONS, "--ema", "0.5", "--out", str(tmp_path / "one")]) == 0
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert output.count("epoch 1/2") == 1  # the first process alone speaks
    assert "2 processes" in output
    one, two = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    assert len(two.rng) == 2
    for part in ("model", "ema"):
        for name, value in getattr(one, part).items():
            torch.testing.assert_close(
                getattr(two, part)[name], value, rtol=2e-3, atol=2e-4, msg=f"{part} {name}"
            )
    torch.testing.assert_close(two.log, one.log, rtol=1e-4, atol=1e-5)
    rows = [read_run(tmp_path / name).epochs[-1] for name in ("one", "two")]
    for name in ("train_loss", "test_loss"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-3)
    assert abs(rows[1]["test_accuracy"] - rows[0]["test_accuracy"]) <= 2 / 360


def test_a_dead_process_stops_the_others_with_a_message(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = torchrun(*OPTIONS, "--epochs", "400", "--out", str(out))
    deadline = time.monotonic() + 150
    while not (out / "last.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    victim = next(pid for pid in children(process.pid) if rank_of(pid) == "1")
    os.kill(victim, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "another process of the run has stopped" in error or "interrupted by SIGTERM" in error, (
        error
    )
    assert load_checkpoint(out / "last.pt").epoch >= 1


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def rank_of(pid: int) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((v.partition(b"=")[2].decode() for v in variables if v.startswith(b"RANK=")), None)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [12, 80], ids=["memory", "files"])
def test_shares_make_up_the_batches(world: int, side: int, tmp_path: Path) -> None:
    """Each picture of each batch goes to one process, and looks as it does alone."""
    root = picture_tree(tmp_path, side)
    size = 32 if side == 80 else 0
    data = open_data(TrainConfig(data=str(root), size=size, workers=0))
    cpu = torch.device("cpu")
    alone = list(data.train_batches(3, 0, 7, 1, cpu))
    shares = [list(data.train_batches(3, 0, 7, 1, cpu, Ranks(r, world))) for r in range(world)]
    assert len(alone) == 1
    for step, (images, labels) in enumerate(alone):
        parts = [share[step] for share in shares]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
    tests = [b for r in range(world) for b in data.test_batches(7, cpu, Ranks(r, world))]
    assert all(len(labels) for _, labels in tests)
    assert torch.cat([labels for _, labels in tests]).bincount().tolist() == [6, 6, 6]


def _synced(model: nn.Module, order: str) -> nn.Module:
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    return fuse(convert(model)) if order == "before" else convert(fuse(model))


def _syncbn_rank(rank: int, file: str, order: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = _synced(_model(), order)
    rows = (slice(0, 3), slice(3, 8))[rank]
    model(_images()[rows]).square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    for gradient in gradients:
        dist.all_reduce(gradient)
    if rank == 0:
        torch.save({"gradients": gradients, "buffers": list(model.buffers())}, out)
    dist.destroy_process_group()


def _model() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet8(width=8, fused=False).double()


def _images() -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 12, 12, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("order", ["before", "after"])
def test_sync_bn_before_or_after_fuse(order: str, tmp_path: Path) -> None:
    """Uneven shares, summed over the processes, have the gradients of the whole batch in stock."""
    out = str(tmp_path / "rank0.pt")
    mp.spawn(_syncbn_rank, (str(tmp_path / "store"), order, out), nprocs=2)
    got = torch.load(out)
    model = _model()
    model(_images()).square().sum().backward()
    for name, value in (
        ("gradients", [p.grad for p in model.parameters()]),
        ("buffers", list(model.buffers())),
    ):
        for actual, expected in zip(got[name], value, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9, msg=name)
