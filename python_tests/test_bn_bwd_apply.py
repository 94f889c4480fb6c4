"""bn_bwd_apply: dy = A * g' + B * (y - mean) + C."""

from __future__ import annotations

import pytest
import torch
from bn_cases import (
    CASES,
    OPS,
    RELU,
    SLOPE,
    Draw,
    as_double,
    assert_deterministic,
    away_from_kinks,
    case_id,
    check,
    large_sizes,
    sizes,
    small_sizes,
)

from resnet_kernels import reference
from resnet_kernels.reference.bn import pre_act

pytestmark = pytest.mark.usefixtures("each_backend")


def arguments(draw, size, with_act):
    channels = size[1]
    mean, _, scale, bias = draw.bn(channels)
    y, g = draw.activation(size), draw.activation(size)
    abc = torch.stack([draw.vector(channels) for _ in range(3)])
    if with_act:
        g = away_from_kinks(g, pre_act(y.double(), scale.double(), bias.double()))
        return g, y, mean, abc, scale, bias
    return g, y, mean, abc, None, None


@pytest.mark.parametrize("with_act", [False, True], ids=["g", "act"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_definition(case, with_act, rng, repro):
    draw = Draw(rng, case)
    for act in range(5) if with_act else (0,):
        for size in sizes() if act == RELU else small_sizes():
            check("bn_bwd_apply", size, 4, repro, *arguments(draw, size, with_act), act, SLOPE)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_integers_are_exact(case, rng):
    draw = Draw(rng, case, exact=True)
    for act in (0, RELU):
        for size in sizes():
            args = (*arguments(draw, size, True), act, SLOPE)
            want = reference.bn_bwd_apply(*map(as_double, args))
            assert torch.equal(OPS.bn_bwd_apply(*args).double(), want), size


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_deterministic(case, rng):
    for size in large_sizes():
        assert_deterministic("bn_bwd_apply", *arguments(Draw(rng, case), size, True), RELU, 0.0)


def test_large_mean_keeps_its_digits(rng):
    """Around the mean: at mean / std = 1000 the y term keeps the precision of y itself."""
    y = torch.randn((2, 16, 8, 8), generator=rng) + 1000
    g = torch.randn((2, 16, 8, 8), generator=rng)
    abc = torch.stack([torch.ones(16), torch.full((16,), 0.5), torch.zeros(16)])
    args = g, y, torch.full((16,), 1000.0), abc, None, None, 0, 0.0
    want = reference.bn_bwd_apply(*map(as_double, args))
    assert (OPS.bn_bwd_apply(*args) - want).abs().max() < 1e-6
