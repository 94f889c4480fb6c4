"""conv_wgrad: our fp32 kernels on the CPU against the definition."""

from __future__ import annotations

import pytest
import torch
from bn_cases import GELU, IDENTITY, LEAKY, OPS, RELU, SILU, as_double, assert_deterministic, check
from conv_cases import (
    DIRECT,
    NO_PROLOGUE,
    SHAPES,
    WINOGRAD,
    OwnKernels,
    draw,
    filter_of,
    geometry,
    own_kernels,  # noqa: F401 - applies to all tests here
    prologue,
)

from resnet_kernels import reference


def arguments(d, shape, layout="nhwc"):
    return d.activation(shape.y_size), d.activation(shape.x_size), filter_of(d, shape, layout)


def pixels(shape):
    return max(shape.n * shape.y_size[2] * shape.y_size[3], 1)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_definition(shape, layout, rng, repro):
    """dw lies in the strides of w."""
    d = draw(rng)
    args = arguments(d, shape, layout)
    for before in (NO_PROLOGUE, prologue(d, shape.c, RELU)):
        check("conv_wgrad", shape.w_size, pixels(shape), repro, *args, *before, *geometry(shape))
        dw = OPS.conv_wgrad(*args, *before, *geometry(shape))
        assert dw.stride() == args[2].stride()


@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@pytest.mark.parametrize("shape", [WINOGRAD[6], DIRECT[1], DIRECT[6]], ids=lambda s: s.id)
def test_prologue(shape, act, rng, repro):
    d = draw(rng)
    before = prologue(d, shape.c, act)
    args = (*arguments(d, shape), *before, *geometry(shape))
    check("conv_wgrad", shape.w_size, pixels(shape), repro, *args)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_integers_are_exact(shape, rng):
    d = draw(rng, exact=True)
    args = (*arguments(d, shape), *prologue(d, shape.c, RELU), *geometry(shape))
    want = reference.conv_wgrad(*map(as_double, args))
    assert torch.equal(OPS.conv_wgrad(*args).double(), want)


@pytest.mark.parametrize("shape", [*WINOGRAD[-2:], *DIRECT], ids=lambda s: s.id)
def test_own_kernels_and_the_same_bits(shape, rng):
    d = draw(rng)
    with OwnKernels():
        before = prologue(d, shape.c, RELU)
        assert_deterministic("conv_wgrad", *arguments(d, shape), *before, *geometry(shape))
