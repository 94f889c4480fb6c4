"""bn_stats: count, mean and M2 per channel."""

from __future__ import annotations

import pytest
import torch
from bn_cases import (
    CASES,
    FORMATS,
    OPS,
    Draw,
    assert_deterministic,
    case_id,
    check,
    large_sizes,
    rows_of,
    sizes,
)

pytestmark = pytest.mark.usefixtures("each_backend")


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_definition(case, rng, repro):
    draw = Draw(rng, case)
    for size in sizes():
        stats = check("bn_stats", size, rows_of(size), repro, draw.activation(size))[0]
        assert (stats[0] == size[0] * size[2] * size[3]).all()


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_integers_are_exact(case, rng):
    """Every tail and every chunk: sums of small integers leave no room for an error."""
    draw = Draw(rng, case, exact=True)
    for size in sizes():
        x = draw.activation(size)
        m = rows_of(size)
        if x.numel() == 0:
            continue
        stats, values = OPS.bn_stats(x).double(), x.double()
        mean = values.sum((0, 2, 3)) / m
        m2 = (values - mean[:, None, None]).square().sum((0, 2, 3))
        assert torch.allclose(stats[1], mean, rtol=3e-7, atol=1e-6), size
        assert torch.allclose(stats[2], m2, rtol=1e-6, atol=1e-5), size


@pytest.mark.parametrize("layout", FORMATS)
def test_large_mean(layout, rng):
    """Mean / std = 1000 in fp32: the sum of squares would lose every digit of the variance."""
    x = torch.randn((4, 32, 56, 56), generator=rng) + 1000
    check_moments(x.contiguous(memory_format=FORMATS[layout]))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kind", ["outlier", "jump", "drift", "constant"])
def test_pivots(kind, layout, rng):
    """Data whose first elements say nothing about the rest."""
    x = torch.randn((4, 8, 64, 64), generator=rng)
    if kind == "outlier":
        x[0, :, 0, 0] = 1e4
    elif kind == "jump":
        x[2:] += 3000
    elif kind == "drift":
        x += torch.linspace(-500, 500, 4 * 64 * 64).view(4, 1, 64, 64)
    else:
        x = torch.full_like(x, 0.1)
    check_moments(x.contiguous(memory_format=FORMATS[layout]))


def check_moments(x):
    _, mean, m2 = OPS.bn_stats(x).double()
    exact = x.double()
    want = exact.mean((0, 2, 3))
    want_m2 = (exact - want[:, None, None]).square().sum((0, 2, 3))
    eps = torch.finfo(torch.float32).eps
    scale = want.abs() + (want_m2 / exact[:, 0].numel()).sqrt()
    assert ((mean - want).abs() <= 2 * eps * scale).all()
    # An error of the mean as large as its rounding costs M * (eps * mean)^2.
    slack = exact[:, 0].numel() * (eps * want.abs()) ** 2
    assert ((m2 - want_m2).abs() <= 20 * eps * want_m2 + slack).all()


def test_huge_count():
    """More elements than fp32 counts one by one."""
    x = torch.full((1, 1, 4100, 4100), 0.5, dtype=torch.bfloat16)
    x[..., ::2] = 1.5
    for tensor in (x, x.view(1, 1, 4100, 4100).contiguous(memory_format=torch.channels_last)):
        count, mean, m2 = OPS.bn_stats(tensor).flatten().tolist()
        assert (count, mean) == (4100 * 4100, 1.0)
        assert m2 == 4100 * 4100 / 4


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_stays_in_its_channel(bad, layout, rng):
    x = torch.randn((3, 20, 5, 9), generator=rng)
    clean = OPS.bn_stats(x.contiguous(memory_format=FORMATS[layout]))
    x[2, 7, 4, 8] = bad
    stats = OPS.bn_stats(x.contiguous(memory_format=FORMATS[layout]))
    finite = stats.isfinite().all(0)
    assert not finite[7]
    assert finite.sum() == 19
    assert torch.equal(stats[:, finite], clean[:, finite])


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_deterministic(case, rng):
    for size in (*large_sizes(), (3, 35, 40, 41)):
        assert_deterministic("bn_stats", Draw(rng, case).activation(size))
