"""The per-op benches run and refuse a wrong kernel; the bytes model adds up by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bytes_model, harness
from benchmarks.bytes_model import Block, Conv, Network
from resnet_kernels import models

BENCHES = ["bench_bn_stats", "bench_bn_act_fwd", "bench_bn_act_bwd", "bench_max_pool"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("bench", BENCHES)
def test_every_bench_passes_its_gate_and_gives_a_row(bench: str, dtype: str) -> None:
    module = importlib.import_module(f"benchmarks.{bench}")
    cases = list(module.cases((2, 24, 9, 9), harness.DTYPES[dtype]))
    for case in cases:
        row = harness.measure(case, dtype, reps=2)
        assert float(row["ours_ms"]) > 0
        assert float(row["torch_ms"]) > 0
        assert row["dtype"] == dtype


def test_no_row_from_a_wrong_kernel() -> None:
    y = harness.activation((2, 8, 5, 5), torch.float32)
    case = harness.Case("relu", (y,), lambda y: y.relu() * 1.001, torch.relu, passes=2)
    with pytest.raises(SystemExit, match=r"relu: error 1\.00e-03 over the limit"):
        harness.measure(case, "fp32", reps=1)


def test_eager_bytes_by_hand() -> None:
    """A stem and one block of two convolutions, 10 elements everywhere, filters of 1."""
    conv = Conv(10, 10, 1)
    net = Network(conv, 0, (Block((conv, conv)),))
    stem = 2 * 21 + 8 * 10 + 5 * 10
    block = 2 * (3 * 21 + 8 * 10 + 5 * 10) + 3 * 10 + 3 * 10
    assert bytes_model.eager(net, 4) == 4 * (stem + block)
    pooled = Network(conv, 5, ())
    assert bytes_model.eager(pooled, 2) == 2 * (stem + 15 + 25) + 16 * 5


def test_our_bytes_by_hand() -> None:
    conv = Conv(80, 80, 1)
    net = Network(conv, 0, (Block((conv, conv)), Block((conv, conv))))
    stem = 2 * 161 + 3 * 80 + 2 * 80 + 2 * 80
    block = 2 * (3 * 161 + 3 * 80) + 80 + 3 * 80 + 3 * 80 + 80 + 80
    assert bytes_model.ours(net, 1, 0) == stem + 2 * block
    # Applying in prologues: a pass of three becomes one more read in each of dgrad and wgrad.
    applied = bytes_model.ours(net, 1, bytes_model.APPLY)
    assert bytes_model.ours(net, 1, 0) - applied == 2 * 80 + 4 * 80
    # Masks: the sign of z becomes a bit that is written and read.
    masked = bytes_model.ours(net, 1, bytes_model.MASKS)
    assert applied - masked == 2 * (80 - 2 * 10)
    assert masked - bytes_model.ours(net, 1, bytes_model.ACROSS) == 2 * 80


def test_shapes_of_resnet50() -> None:
    net = bytes_model.network(models.create("resnet50", fused=False), (2, 3, 224, 224))
    assert net.stem == Conv(2 * 3 * 224**2, 2 * 64 * 112**2, 64 * 3 * 49)
    assert net.pooled == 2 * 64 * 56**2
    assert [len(b.convs) for b in net.blocks] == [3] * 16
    assert [i for i, b in enumerate(net.blocks) if b.downsample] == [0, 3, 7, 13]
    weights = net.stem.w + sum(c.w for b in net.blocks for c in b.convs)
    weights += sum(b.downsample.w for b in net.blocks if b.downsample)
    assert weights == 23454912  # torchvision's 25,557,032 without batch norm and the classifier


def test_resnet50_shares_are_those_of_the_design() -> None:
    """Counted apart from this model, before it was written: 0.62, 0.58, 0.56, 0.51."""
    net = bytes_model.network(models.create("resnet50", fused=False), (64, 3, 224, 224))
    shares = [share for _, _, share in bytes_model.table(net, 2)]
    assert shares == pytest.approx([1, 0.62, 0.58, 0.56, 0.51], abs=0.01)
