"""bn_finalize, bn_affine and bn_bwd_finalize: the ops on per-channel vectors."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from bn_cases import OPS, assert_deterministic
from oracle import assert_close_to_oracle

from resnet_kernels import reference

pytestmark = pytest.mark.usefixtures("each_backend")

DTYPES = (torch.float32, torch.float64)
RUNNING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NAMES = ("mean", "rstd", "scale", "bias", "count")
CHANNELS = 37


def vector(rng, dtype, positive=False):
    v = torch.randn(CHANNELS, generator=rng, dtype=torch.float64)
    return (v.abs() + 0.1 if positive else v).to(dtype)


def group_stats(rng, counts, dtype):
    """[G, 3, K] statistics of random groups, the elements of which have those counts."""
    return torch.stack(
        [
            torch.stack(
                [
                    torch.full((CHANNELS,), float(count)),
                    torch.randn(CHANNELS, generator=rng) * (count > 0),
                    torch.rand(CHANNELS, generator=rng) * max(count - 1, 0),
                ]
            )
            for count in counts
        ]
    ).to(dtype)


def check_all(ours, want, plain, repro):
    for name, a, b, c in zip(NAMES, ours, want, plain, strict=False):
        assert_close_to_oracle(a, b, c, 8, name=name, repro=repro)


@pytest.mark.parametrize("counts", [(50,), (7, 20, 1), (0, 9, 0, 4), (1,), (0,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("momentum", [0.1, None, 1.0])
def test_finalize(dtype, counts, momentum, rng, repro):
    stats = group_stats(rng, counts, dtype)
    for running_dtype, absent in itertools.product(RUNNING, (False, True)):
        gamma, beta, conv_bias = (None if absent else vector(rng, running_dtype) for _ in range(3))
        start = [vector(rng, running_dtype), vector(rng, running_dtype, True), torch.tensor(4)]
        results = []
        for op, convert in (
            (OPS.bn_finalize, lambda v: v),
            (reference.bn_finalize, lambda v: None if v is None else v.double()),
            (reference.bn_finalize, lambda v: v),
        ):
            running = [convert(v.clone()) for v in start[:2]] + [start[2].clone()]
            args = [convert(v) for v in (stats, gamma, beta, conv_bias)]
            results.append((op(*args, *running, momentum, 1e-5), running))
        (ours, mine), (want, exact), (plain, theirs) = results
        check_all(ours, want, plain, repro)
        assert mine[2] == 5
        for a, b, c in zip(mine[:2], exact[:2], theirs[:2], strict=True):
            assert_close_to_oracle(a, b, c, 8, name=f"running {running_dtype}", repro=repro)


def test_finalize_without_running_statistics(rng, repro):
    stats = group_stats(rng, (12,), torch.float32)
    args = (None, None, None, None, None, None, 0.1, 1e-3)
    check_all(
        OPS.bn_finalize(stats, *args),
        reference.bn_finalize(stats.double(), *args),
        reference.bn_finalize(stats, *args),
        repro,
    )


@pytest.mark.parametrize("channels", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finalize_of_few_channels(dtype, channels):
    stats = torch.zeros(2, 3, channels, dtype=dtype)
    stats[:, 0] = torch.tensor([[3], [4]])
    *vectors, count = OPS.bn_finalize(stats, *[None] * 6, 0.1, 1e-5)
    assert [v.shape for v in vectors] == [(channels,)] * 4
    assert torch.equal(count, torch.full((1,), 7.0 * channels, dtype=dtype))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_follow_torch(momentum, rng):
    """100 steps of the chain bn_stats, bn_finalize against a BatchNorm2d module."""
    module = torch.nn.BatchNorm2d(8, momentum=momentum)
    mean, var, count = torch.zeros(8), torch.ones(8), torch.tensor(0)
    for step in range(100):
        x = torch.randn((2, 8, 3, 3), generator=rng) * (1 + step % 3) + step % 7
        module(x)
        stats = OPS.bn_stats(x)[None]
        OPS.bn_finalize(stats, None, None, None, mean, var, count, momentum, 1e-5)
    assert count == module.num_batches_tracked
    assert torch.allclose(mean, module.running_mean, rtol=2e-6, atol=1e-6)
    assert torch.allclose(var, module.running_var, rtol=2e-6)


def test_every_16_bit_running_statistic_survives():
    """momentum 0 writes back what it read: all fp16 and bf16 numbers, denormals too."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        start = torch.where(bits.view(dtype).isfinite(), bits.view(dtype), 1)
        stats = torch.ones((1, 3, 65536))
        stats[:, 0] = 5
        mean, var = start.clone(), start.clone()
        OPS.bn_finalize(stats, None, None, None, mean, var, None, 0.0, 1e-5)
        assert torch.equal(mean, start)
        assert torch.equal(var, start)


@pytest.mark.parametrize("running_dtype", RUNNING, ids=str)
def test_affine(running_dtype, rng, repro):
    running = vector(rng, running_dtype), vector(rng, running_dtype, True)
    dtype = torch.float64 if running_dtype == torch.float64 else torch.float32
    for absent in (False, True):
        rest = [None if absent else vector(rng, dtype) for _ in range(3)]
        exact = [None if absent else v.double() for v in rest]
        ours = OPS.bn_affine(*running, *rest, 1e-5)
        want = reference.bn_affine(*(v.double() for v in running), *exact, 1e-5)
        plain = reference.bn_affine(*running, *rest, 1e-5)
        check_all(ours, want, plain, repro)
        assert all(a.data_ptr() != running[0].data_ptr() for a in ours)


def test_affine_of_mixed_dtypes(rng, repro):
    """Every vector in every dtype, beside a mean of every dtype."""
    for first, shift in itertools.product(RUNNING, range(len(RUNNING))):
        dtypes = [first, *(RUNNING[(i + shift) % len(RUNNING)] for i in range(4))]
        vectors = [vector(rng, dtype, i == 1) for i, dtype in enumerate(dtypes)]
        exact = reference.bn_affine(*(v.double() for v in vectors), 1e-5)
        plain = reference.bn_affine(*(v.to(dtypes[0]) for v in vectors), 1e-5)
        check_all(OPS.bn_affine(*vectors, 1e-5), exact, plain, repro)


def test_affine_is_eval_mode(rng):
    x = torch.randn((2, CHANNELS, 3, 3), generator=rng)
    mean, var = vector(rng, torch.float32), vector(rng, torch.float32, True)
    gamma, beta = vector(rng, torch.float32), vector(rng, torch.float32)
    *_, scale, bias = OPS.bn_affine(mean, var, gamma, beta, None, 1e-5)
    want = F.batch_norm(x, mean, var, gamma, beta, False, 0.1, 1e-5)
    assert torch.allclose(x * scale[:, None, None] + bias[:, None, None], want, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0.0, 1.0, 1000.0])
def test_bwd_finalize(dtype, count, rng, repro):
    sums = torch.stack([vector(rng, dtype), vector(rng, dtype)])
    rstd, m = vector(rng, dtype, True), torch.tensor([count], dtype=dtype)
    for gamma in (None, *(vector(rng, other) for other in RUNNING)):
        exact = [None if v is None else v.double() for v in (sums, gamma, rstd, m)]
        ours = OPS.bn_bwd_finalize(sums, gamma, rstd, m)
        plain = reference.bn_bwd_finalize(sums, gamma, rstd, m)
        for row in range(3):
            want = reference.bn_bwd_finalize(*exact)[row]
            assert_close_to_oracle(ours[row], want, plain[row], 4, name="ABC"[row], repro=repro)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_deterministic(dtype, rng):
    stats = group_stats(rng, (7, 20, 1), dtype)
    gamma, beta, var = vector(rng, dtype), vector(rng, dtype), vector(rng, dtype, True)
    assert_deterministic("bn_finalize", stats, gamma, beta, *[None] * 4, 0.1, 1e-5)
    assert_deterministic("bn_affine", beta, var, gamma, beta, None, 1e-5)
    assert_deterministic("bn_bwd_finalize", stats[0, 1:], gamma, var, stats[0, 0, :1])
