"""conv_apply_dgrad, conv_apply_dgrad_bn: a batch norm's dy and the input gradient from it."""

from __future__ import annotations

import pytest
import torch
from bn_cases import OPS, RELU, as_double, check, tuple_of
from conv_cases import (
    DIRECT,
    EMULATED,
    draw,
    geometry,
    over,
    own_kernels,  # noqa: F401 - applies to all tests here
    same_bits,
)
from shapes import ConvShape
from test_conv_dgrad import arguments, bn_arguments, length_of

from resnet_kernels import reference

# Where the batch norm may become part of the kernel, and where it cannot.
POINTWISE = [ConvShape(2, 24, 5, 6, 40, 1, 1), ConvShape(1, 72, 7, 7, 16, 1, 1, (2, 2))]
SHAPES = [*DIRECT[:4], *POINTWISE]
EMULATED_SHAPES = [*EMULATED[:3], EMULATED[5], *POINTWISE]


def next_bn(d, shape):
    """g, y, mean and abc of the batch norm behind the convolution."""
    abc = torch.stack([d.vector(shape.k) for _ in range(3)])
    return d.activation(shape.y_size), d.activation(shape.y_size), d.vector(shape.k), abc


@over(SHAPES, EMULATED_SHAPES)
def test_definition(case, rng, repro):
    shape, d = case.shape, draw(rng, case.dtype)
    _, w = arguments(d, shape)
    for branch in (None, d.activation(shape.x_size)):
        args = (*next_bn(d, shape), w, branch, list(shape.x_size), *geometry(shape))
        # The product's terms are those of three sums: A * g, B * (y - mean) and C.
        check("conv_apply_dgrad", shape.x_size, 3 * length_of(shape), repro, *args, strides=False)


@pytest.mark.parametrize("mask", [False, True], ids=["recomputed", "mask"])
@over(SHAPES, EMULATED_SHAPES)
def test_integers_are_exact(case, mask, rng, repro):
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    following, (_, w) = next_bn(d, shape), arguments(d, shape)
    branch = d.activation(shape.x_size)
    args = (*following, w, branch, list(shape.x_size), *geometry(shape))
    for ours, exact in zip(
        OPS.conv_apply_dgrad(*args), reference.conv_apply_dgrad(*map(as_double, args)), strict=True
    ):
        assert torch.equal(ours, exact.to(ours.dtype)), repro
    bn = bn_arguments(d, shape, mask)
    args = (*following, w, branch, *bn, RELU, 0.0, *geometry(shape))
    g, sums, dy = OPS.conv_apply_dgrad_bn(*args)
    want_g, _, want_dy = reference.conv_apply_dgrad_bn(*map(as_double, args))
    assert torch.equal(g, want_g.to(g.dtype)), repro
    assert torch.equal(dy, want_dy.to(dy.dtype)), repro
    y, mean, rstd = (t.double() for t in bn[:3])
    want_sums = reference.bn.bn_sums(g.double(), y, mean, rstd)
    assert torch.allclose(sums.double(), want_sums, rtol=1e-5, atol=1e-3), repro


@over(POINTWISE, POINTWISE)
def test_the_same_as_two_ops(case, rng):
    """dy is that of bn_bwd_apply, dx that of conv_dgrad."""
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    following, (_, w) = next_bn(d, shape), arguments(d, shape)
    rest = (w, None, list(shape.x_size), *geometry(shape))
    dx, dy = OPS.conv_apply_dgrad(*following, *rest)
    alone = OPS.bn_bwd_apply(*following, None, None, 0, 0.0)
    assert torch.equal(dy, alone)
    assert torch.equal(dx, OPS.conv_dgrad(alone, *rest))


@over(POINTWISE, [*EMULATED[1:2], *POINTWISE])
def test_the_same_bits(case, rng):
    shape, d = case.shape, draw(rng, case.dtype)
    following, (_, w) = next_bn(d, shape), arguments(d, shape)
    same_bits(
        case, "conv_apply_dgrad_bn", *following, w, None, *bn_arguments(d, shape), RELU, 0.0,
        *geometry(shape),
    )  # fmt: skip


@over([], POINTWISE)
def test_contiguous_activations(case, rng, repro):
    """NCHW, and g in another layout's memory than the kernels read."""
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    following, (_, w) = next_bn(d, shape), arguments(d, shape, "nchw")
    following = (*(t.contiguous() for t in following[:2]), *following[2:])
    args = (*following, w, None, list(shape.x_size), *geometry(shape))
    dx, dy = OPS.conv_apply_dgrad(*args)
    want_dx, want_dy = reference.conv_apply_dgrad(*map(as_double, args))
    assert dx.is_contiguous() and dy.is_contiguous()
    assert torch.equal(dx, want_dx.to(dx.dtype)), repro
    assert torch.equal(dy, want_dy.to(dy.dtype)), repro


def test_nan_and_infinity_stay_in_their_pixel(each_backend, rng):
    shape = POINTWISE[0]
    d = draw(rng)
    following, (_, w) = next_bn(d, shape), arguments(d, shape)
    following[0][0, 3, 2, 1], following[1][1, 5, 4, 4] = float("nan"), float("inf")
    args = (*following, w, None, list(shape.x_size), *geometry(shape))
    dx, dy = tuple_of(OPS.conv_apply_dgrad(*args))
    bad = (~dy.isfinite()).any(1)
    assert bad.sum() == 2 and torch.equal((~dx.isfinite()).any(1), bad)


def test_refuses_what_would_read_outside(each_backend, rng):
    shape = POINTWISE[0]
    d = draw(rng)
    (g, y, mean, abc), (_, w) = next_bn(d, shape), arguments(d, shape)
    rest = (w, None, list(shape.x_size), *geometry(shape))
    bad_calls = {
        "g: expected": (g[:1], y, mean, abc),
        "g: dtype": (g.half(), y, mean, abc),
        "mean: expected": (g, y, mean[:-1], abc),
        "abc: expected": (g, y, mean, abc[:2]),
        "dy: not the size|y: not the size": (g[:1], y[:1], mean, abc),
    }
    for message, args in bad_calls.items():
        with pytest.raises(RuntimeError, match=message):
            OPS.conv_apply_dgrad(*args, *rest)
