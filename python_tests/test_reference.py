"""The definitions in reference/ against plain torch and against examples worked by hand."""

from __future__ import annotations

import inputs
import pytest
import torch
import torch.nn.functional as F

from resnet_kernels import reference
from resnet_kernels.ops import ACTS

LAYOUTS = (torch.channels_last, torch.contiguous_format)
CONV = ((2, 1), (1, 2), (1, 1), 2, False)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_statistics_of_parts_merge_to_those_of_the_whole(rng):
    x = inputs.normal(rng, 6, 5, 4, 3, dtype=torch.float64) + 100
    var, mean = torch.var_mean(x, (0, 2, 3))
    running = torch.zeros(5).double(), torch.ones(5).double()
    parts = [reference.bn_stats(p) for p in (x[:1], x[1:1], x[1:])]
    stats = torch.stack(parts)
    assert stats[:, 0, 0].tolist() == [12, 0, 60]
    got = reference.bn_finalize(stats, None, None, None, *running, None, 0.25, 0.0)
    close(got[0], mean)
    close(1 / got[1] ** 2, x.var((0, 2, 3), correction=0))
    close(running[0], 0.25 * mean)
    close(running[1], 0.75 + 0.25 * var)
    assert got[4].tolist() == [72]


def test_statistics_far_from_zero(rng):
    """Mean 1000, deviation 1, fp32: sum x^2 - (sum x)^2 / M would lose the variance."""
    x = inputs.normal(rng, 8, 3, 32, 32) + 1000
    count, mean, m2 = reference.bn_stats(x)
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-7, atol=0)
    expected = exact.var((0, 2, 3), correction=0) * count
    torch.testing.assert_close(m2.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("act", range(len(ACTS)), ids=ACTS.__getitem__)
@pytest.mark.parametrize("case", ["plain", "residual", "dual"])
def test_bn_act_backward_is_that_of_autograd(case, act, layout, rng):
    slope, eps, kind = 0.1, 1e-5, torch.float64
    y, y2 = (
        inputs.normal(rng, 3, 5, 4, 3, dtype=kind).contiguous(memory_format=layout).requires_grad_()
        for _ in range(2)
    )
    gamma, beta, gamma2, beta2 = (
        inputs.normal(rng, 5, dtype=kind).requires_grad_() for _ in range(4)
    )
    t = F.batch_norm(y, None, None, gamma, beta, True, 0.1, eps)
    if case == "residual":
        t = t + y2
    if case == "dual":
        t = t + F.batch_norm(y2, None, None, gamma2, beta2, True, 0.1, eps)
    z = reference.apply_act(t, act, slope)
    dz = inputs.normal(rng, *z.shape, dtype=kind).contiguous(memory_format=layout)
    z.backward(dz)

    with torch.no_grad():
        bn, count = _state(y, gamma, beta, eps)
        bn2, _ = _state(y2, gamma2, beta2, eps)
        other = (None, None, None)
        if case != "plain":
            other = (y2, *(bn2[2:] if case == "dual" else (None, None)))
        got, mask = reference.bn_act_fwd_mask(y, *bn[2:], *other, act, slope)
        close(got, z)
        mask = mask if act in (reference.RELU, reference.LEAKY_RELU) else None
        if case == "plain":
            sums = reference.bn_act_bwd_reduce(dz, y, *bn, act, slope)
            g, apply = dz, (*bn[2:], act, slope)
        elif case == "residual":
            kept = None if mask is not None else y2
            g, sums = reference.bn_act_bwd_reduce_add(dz, y, *bn, kept, mask, act, slope)
            apply = (None, None, 0, 0.0)
            close(g, y2.grad)
        else:
            g, sums, sums2 = reference.bn_act_bwd_reduce_dual(
                dz, y, *bn, y2, *bn2, mask, act, slope
            )
            apply = (None, None, 0, 0.0)
            abc2 = reference.bn_bwd_finalize(sums2, gamma2, bn2[1], count)
            close(reference.bn_bwd_apply(g, y2, bn2[0], abc2, *apply), y2.grad)
            close(sums2, torch.stack([beta2.grad, gamma2.grad]))
        abc = reference.bn_bwd_finalize(sums, gamma, bn[1], count)
        close(reference.bn_bwd_apply(g, y, bn[0], abc, *apply), y.grad)
        close(sums, torch.stack([beta.grad, gamma.grad]))


def _state(y, gamma, beta, eps):
    stats = reference.bn_stats(y)[None]
    *vectors, count = reference.bn_finalize(stats, gamma, beta, *[None] * 4, 0.1, eps)
    return tuple(vectors), count


def test_mask_bits_follow_memory_order():
    positive = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    positive[0, 2, 1, 0] = True
    assert reference.pack_mask(positive).tolist() == [0, 1 << 2]  # ((2 * 2) + 1) * 2 + 0 = 10
    nhwc = positive.contiguous(memory_format=torch.channels_last)
    assert reference.pack_mask(nhwc).tolist() == [0, 1]  # (1 * 2 + 0) * 3 + 2 = 8
    for x in (positive, nhwc):
        assert torch.equal(reference.unpack_mask(reference.pack_mask(x), x), x)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_convolutions_are_those_of_autograd(layout, rng):
    kind = torch.float64
    y_prev = inputs.normal(rng, 2, 4, 6, 5, dtype=kind).contiguous(memory_format=layout)
    w = inputs.normal(rng, 6, 2, 3, 4, dtype=kind).requires_grad_()
    bn, _ = _state(y_prev, None, None, 1e-5)
    z = (y_prev * bn[2][:, None, None] + bn[3][:, None, None]).relu().requires_grad_()
    y = F.conv2d(z, w, None, *CONV[:4])
    dy = inputs.normal(rng, *y.shape, dtype=kind).contiguous(memory_format=layout)
    y.backward(dy)

    relu = (*bn[2:], reference.RELU, 0.0)
    with torch.no_grad():
        got, stats = reference.conv_fwd_stats(y_prev, w, *relu, *CONV)
        close(got, y)
        close(stats, reference.bn_stats(y))
        close(reference.conv_wgrad(dy, y_prev, w, *relu, *CONV), w.grad)
        branch = torch.ones_like(y_prev)
        close(reference.conv_dgrad(dy, w, branch, y_prev.shape, *CONV), z.grad + 1)
        g, sums = reference.conv_dgrad_bn(dy, w, None, y_prev, *bn, None, 1, 0.0, *CONV)
        close(g, z.grad * (z > 0))
        close(sums, reference.bn_act_bwd_reduce(z.grad, y_prev, *bn, 1, 0.0))
        scale, bias = bn[2].repeat(2)[:6], bn[3].repeat(2)[:6]
        out = reference.conv_fwd(y_prev, w, *relu, scale, bias, y.detach(), 2, 0.0, *CONV)
        close(out, F.gelu(y * scale[:, None, None] + bias[:, None, None] + y))


def test_prologue_pads_with_zeros_not_with_act_of_bias():
    x, w = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3)
    one = torch.ones(1)
    conv = ((1, 1), (1, 1), (1, 1), 1, False)
    y = reference.conv_fwd(x, w, one, 10 * one, 1, 0.0, None, None, None, 0, 0.0, *conv)
    assert y.item() == 11


def test_max_pool_indices_are_window_taps():
    x = torch.tensor([[1.0, 5.0, 5.0], [2.0, 0.0, 7.0]])[None, None]
    pool = ((2, 2), (1, 1), (1, 1), (1, 1), False)
    z, taps = reference.max_pool_fwd(x, None, None, 0, 0.0, *pool)
    assert z[0, 0].tolist() == [[1, 5, 5, 5], [2, 5, 7, 7], [2, 2, 7, 7]]
    assert taps[0, 0].tolist() == [[3, 3, 2, 2], [3, 1, 3, 2], [1, 0, 1, 0]]
    dx = reference.max_pool_bwd(torch.ones_like(z), taps, x.shape, *pool[:4])
    assert dx[0, 0].tolist() == [[1, 3, 1], [3, 0, 4]]


def test_tf32_keeps_ten_bits_and_rounds_ties_away():
    step = 2.0**-10
    x = torch.tensor([1 + step, 1 + step / 2, -1 - step / 2, 1 + step * 0.49, float("inf")])
    expected = [1 + step, 1 + step, -1 - step, 1.0, float("inf")]
    assert reference.round_tf32(x).tolist() == expected
    assert reference.round_tf32(torch.tensor([float("nan")])).isnan().all()
