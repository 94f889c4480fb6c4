"""conv_dgrad, conv_dgrad_bn: our fp32 kernels on the CPU against the definition."""

from __future__ import annotations

import pytest
import torch
from bn_cases import GELU, IDENTITY, LEAKY, OPS, RELU, SILU, as_double, assert_deterministic, check
from conv_cases import (
    DIRECT,
    SHAPES,
    WINOGRAD,
    OwnKernels,
    draw,
    filter_of,
    geometry,
    gradient_at,
    own_kernels,  # noqa: F401 - applies to all tests here
)

from resnet_kernels import reference
from resnet_kernels.ops.layout import conv_memory_format, strict_memory_format


def arguments(d, shape, layout="nhwc"):
    return d.activation(shape.y_size), filter_of(d, shape, layout)


def length_of(shape):
    return shape.k // shape.groups * shape.r * shape.s


def bn_arguments(d, shape, mask=False):
    """y_prev with its vectors, and the mask bits where asked for."""
    y, vectors = d.activation(shape.x_size), d.bn(shape.c)
    bits = None
    if mask:
        ones = torch.ones(shape.c)
        bits = OPS.bn_act_fwd_mask(
            d.activation(shape.x_size), ones, 0 * ones, y, None, None, RELU, 0.0
        )
        bits = bits[1]
    return (y, *vectors, bits)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_definition(shape, layout, rng, repro):
    d = draw(rng)
    dy, w = arguments(d, shape, layout)
    other = d.activation(shape.x_size).contiguous(memory_format=conv_memory_format(dy, w))
    for branch in (None, other):
        args = (dy, w, branch, list(shape.x_size), *geometry(shape))
        fixed = strict_memory_format(dy) is not None
        check("conv_dgrad", shape.x_size, length_of(shape), repro, *args, strides=fixed)


@pytest.mark.parametrize("mask", [False, True], ids=["recomputed", "mask"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_bn_definition(shape, mask, rng, repro):
    """With integers nothing is rounded before the kink, and g must come out exact."""
    d = draw(rng, exact=True)
    dy, w = arguments(d, shape)
    branch = d.activation(shape.x_size)
    args = (dy, w, branch, *bn_arguments(d, shape, mask), RELU, 0.0, *geometry(shape))
    g, sums = OPS.conv_dgrad_bn(*args)
    want_g, want_sums = reference.conv_dgrad_bn(*map(as_double, args))
    assert torch.equal(g.double(), want_g), repro
    assert torch.allclose(sums.double(), want_sums, rtol=1e-5, atol=1e-3), repro


@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@pytest.mark.parametrize("shape", [WINOGRAD[1], DIRECT[1], DIRECT[6]], ids=lambda s: s.id)
def test_acts(shape, act, rng, repro):
    d = draw(rng)
    dy, w = arguments(d, shape)
    y, *bn, _ = bn_arguments(d, shape)
    branch = gradient_at(d, shape.x_size, y, bn[2], bn[3])
    args = (dy, w, branch, y, *bn, None, act, 0.1, *geometry(shape))
    rows = max(shape.n * shape.h * shape.w, length_of(shape))
    check("conv_dgrad_bn", shape.x_size, rows, repro, *args)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_integers_are_exact(shape, rng):
    d = draw(rng, exact=True)
    args = (*arguments(d, shape), d.activation(shape.x_size), list(shape.x_size), *geometry(shape))
    want = reference.conv_dgrad(*map(as_double, args))
    assert torch.equal(OPS.conv_dgrad(*args).double(), want)


@pytest.mark.parametrize("shape", [*WINOGRAD[-2:], *DIRECT], ids=lambda s: s.id)
def test_own_kernels_and_the_same_bits(shape, rng):
    d = draw(rng)
    args = (*arguments(d, shape), None, *bn_arguments(d, shape), RELU, 0.0, *geometry(shape))
    with OwnKernels():
        assert_deterministic("conv_dgrad_bn", *args)
