"""bn_act_bwd_reduce, _add and _dual: g = dz * act'(t) and its sums."""

from __future__ import annotations

import pytest
import torch
from bn_cases import (
    CASES,
    FORMATS,
    GELU,
    IDENTITY,
    LEAKY,
    OPS,
    RELU,
    SLOPE,
    Draw,
    as_double,
    assert_deterministic,
    away_from_kinks,
    case_id,
    check,
    in_layout,
    large_sizes,
    rows_of,
    sizes,
    small_sizes,
)

from resnet_kernels import reference
from resnet_kernels.reference.bn import pre_act

pytestmark = pytest.mark.usefixtures("each_backend")


class Chain:
    """Inputs of the three ops for one size."""

    def __init__(self, draw, size):
        self.y, self.bn = draw.activation(size), draw.bn(size[1])
        self.y2, self.bn2 = draw.activation(size), draw.bn(size[1])
        self.residual, self.dz = draw.activation(size), draw.activation(size)

    def alone(self):
        return self.dz_for(), self.y, *self.bn

    def add(self, residual=True, mask=None):
        residual = self.residual if residual else None
        return self.dz_for(residual), self.y, *self.bn, residual, mask

    def dual(self, mask=None):
        dz = self.dz_for(self.y2, *self.bn2[2:])
        return dz, self.y, *self.bn, self.y2, *self.bn2, mask

    def dz_for(self, *rest):
        vectors = [v.double() for v in self.bn[2:]]
        t = pre_act(self.y.double(), *vectors, *(as_double(v) for v in rest))
        return away_from_kinks(self.dz, t)

    def mask(self, dual, act):
        rest = (self.y2, *self.bn2[2:]) if dual else (self.residual, None, None)
        return OPS.bn_act_fwd_mask(self.y, *self.bn[2:], *rest, act, SLOPE)[1]


@pytest.mark.parametrize("act", range(5))
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_definition(case, act, rng, repro):
    draw = Draw(rng, case)
    for size in sizes() if act == RELU else small_sizes():
        length, chain = rows_of(size), Chain(draw, size)
        check("bn_act_bwd_reduce", size, length, repro, *chain.alone(), act, SLOPE)
        add, dual = "bn_act_bwd_reduce_add", "bn_act_bwd_reduce_dual"
        check(add, size, length, repro, *chain.add(), act, SLOPE)
        check(add, size, length, repro, *chain.add(residual=False), act, SLOPE)
        check(dual, size, length, repro, *chain.dual(), act, SLOPE)
        if act in (RELU, LEAKY):
            mask = chain.mask(False, act)
            check(add, size, length, repro, *chain.add(mask=mask), act, SLOPE)
            check(dual, size, length, repro, *chain.dual(chain.mask(True, act)), act, SLOPE)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_integers_are_exact(case, rng):
    """g bit for bit and sums that count every element once: tails, chunks, blocks, mask bits."""
    draw = Draw(rng, case, exact=True)
    for act in (RELU, IDENTITY, LEAKY):
        for size in sizes():
            chain = Chain(draw, size)
            masks = [chain.mask(dual, act) for dual in (False, True)]
            ops = {
                "bn_act_bwd_reduce": [chain.alone()],
                "bn_act_bwd_reduce_add": [chain.add(), chain.add(mask=masks[0])],
                "bn_act_bwd_reduce_dual": [chain.dual(), chain.dual(masks[1])],
            }
            for op, args in [(op, args) for op, calls in ops.items() for args in calls]:
                ours, want = (
                    f(*convert(args), act, 0.5)
                    for f, convert in (
                        (getattr(OPS, op), lambda a: a),
                        (getattr(reference, op), lambda a: map(as_double, a)),
                    )
                )
                ours = (ours,) if isinstance(ours, torch.Tensor) else ours
                want = (want,) if isinstance(want, torch.Tensor) else want
                for a, b in zip(ours, want, strict=True):
                    assert torch.equal(a.double(), b.to(a.dtype).double()), (op, act, size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", FORMATS)
def test_sums_are_those_of_the_stored_g(layout, dtype, rng):
    """Rounding g changes the sums by far more than their own error; dy sees the stored g."""
    chain = Chain(Draw(rng, (dtype, layout)), (2, 17, 9, 8))
    mean, rstd = chain.bn[:2]
    xhat = (chain.y - mean[:, None, None]).double() * rstd[:, None, None]
    for g, sums in (
        OPS.bn_act_bwd_reduce_add(*chain.add(), GELU, 0.0),
        OPS.bn_act_bwd_reduce_dual(*chain.dual(), LEAKY, SLOPE)[:2],
    ):
        for terms, total in ((g.double(), sums[0]), (g.double() * xhat, sums[1])):
            error = (total - terms.sum((0, 2, 3))).abs() / terms.abs().sum((0, 2, 3))
            assert error.max() < 2e-7


@pytest.mark.parametrize("layout", FORMATS)
def test_huge_count(layout):
    """More ones than fp32 counts one by one."""
    y = torch.ones((1, 1, 4100, 4100), dtype=torch.bfloat16)
    y = in_layout(y, layout)
    zero, one = torch.zeros(1), torch.ones(1)
    sums = OPS.bn_act_bwd_reduce(y, y, zero, one, one, zero, RELU, 0.0)
    assert sums.flatten().tolist() == [4100 * 4100] * 2


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_the_mask_decides(case, rng, repro):
    """Where a mask is given it counts for relu and leaky relu, not the sign of y."""
    draw = Draw(rng, case)
    for size in small_sizes():
        chain = Chain(draw, size)
        for act in (RELU, LEAKY):
            masks = [~chain.mask(dual, act) for dual in (False, True)]
            add, dual = chain.add(mask=masks[0]), chain.dual(masks[1])
            check("bn_act_bwd_reduce_add", size, rows_of(size), repro, *add, act, SLOPE)
            check("bn_act_bwd_reduce_dual", size, rows_of(size), repro, *dual, act, SLOPE)


@pytest.mark.parametrize("layout", FORMATS)
def test_masked_infinities_vanish(layout, rng):
    """As in torch, dz behind a closed relu does not count even if it is infinite or NaN."""
    draw = Draw(rng, (torch.float32, layout))
    chain = Chain(draw, (2, 20, 3, 5))
    want = OPS.bn_act_bwd_reduce(*chain.alone(), RELU, 0.0)
    t = pre_act(chain.y, *chain.bn[2:])
    dz = in_layout(torch.where(t > 0, chain.dz, float("inf")), layout)
    assert torch.equal(OPS.bn_act_bwd_reduce(dz, chain.y, *chain.bn, RELU, 0.0), want)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_deterministic(case, rng):
    for size in large_sizes():
        chain = Chain(Draw(rng, case), size)
        assert_deterministic("bn_act_bwd_reduce", *chain.alone(), RELU, 0.0)
        mask = chain.mask(True, RELU)
        assert_deterministic("bn_act_bwd_reduce_dual", *chain.dual(mask), RELU, 0.0)


def test_no_channels(rng):
    chain = Chain(Draw(rng, (torch.float32, "nhwc")), (2, 0, 4, 4))
    assert OPS.bn_act_bwd_reduce(*chain.alone(), RELU, 0.0).shape == (2, 0)
    g, sums = OPS.bn_act_bwd_reduce_add(*chain.add(), RELU, 0.0)
    assert (g.shape, sums.shape) == ((2, 0, 4, 4), (2, 0))


def test_refuses_what_would_read_outside(rng):
    chain = Chain(Draw(rng, (torch.float32, "nhwc")), (2, 16, 4, 4))
    mask = chain.mask(False, RELU)
    dz, y, *bn = chain.alone()
    with pytest.raises(RuntimeError, match="dz: memory layout"):
        OPS.bn_act_bwd_reduce(dz.contiguous(), y, *bn, RELU, 0.0)
    with pytest.raises(RuntimeError, match="rstd: expected 16"):
        OPS.bn_act_bwd_reduce(dz, y, bn[0], bn[1][:4], *bn[2:], RELU, 0.0)
    with pytest.raises(RuntimeError, match="mask: expected one contiguous bit"):
        OPS.bn_act_bwd_reduce_add(dz, y, *bn, None, mask[:-1], RELU, 0.0)
    with pytest.raises(RuntimeError, match="y2: dtype"):
        OPS.bn_act_bwd_reduce_dual(dz, y, *bn, y.half(), *bn, None, GELU, 0.0)
