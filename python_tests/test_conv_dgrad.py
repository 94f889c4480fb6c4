"""conv_dgrad, conv_dgrad_bn: our kernels against the definition."""

from __future__ import annotations

import pytest
import torch
from bn_cases import (
    GELU,
    IDENTITY,
    LEAKY,
    OPS,
    RELU,
    SILU,
    as_double,
    check,
    vector_dtype,
)
from conv_cases import (
    BANDS,
    DIRECT,
    DTYPES,
    EMULATED,
    EMULATED_SHAPES,
    SHAPES,
    SPECIAL,
    SPLIT,
    WINOGRAD,
    OwnKernels,
    draw,
    exact_draw,
    filter_of,
    geometry,
    gradient_at,
    over,
    own_if_served,
    own_kernels,  # noqa: F401 - applies to all tests here
    put_specials,
    same_bits,
    same_with_specials,
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
        ones = torch.ones(shape.c, dtype=vector_dtype(d.dtype))
        bits = OPS.bn_act_fwd_mask(
            d.activation(shape.x_size), ones, 0 * ones, y, None, None, RELU, 0.0
        )
        bits = bits[1]
    return (y, *vectors, bits)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@over(SHAPES, EMULATED_SHAPES, WINOGRAD)
def test_definition(case, layout, rng, repro):
    shape, d = case.shape, draw(rng, case.dtype)
    dy, w = arguments(d, shape, layout)
    other = d.activation(shape.x_size).contiguous(memory_format=conv_memory_format(dy, w))
    for branch in (None, other):
        args = (dy, w, branch, list(shape.x_size), *geometry(shape))
        fixed = strict_memory_format(dy) is not None
        rules = {"strides": fixed, "amplification": case.amplification}
        check("conv_dgrad", shape.x_size, length_of(shape), repro, *args, **rules)


@pytest.mark.parametrize("mask", [False, True], ids=["recomputed", "mask"])
@over(SHAPES, EMULATED_SHAPES, WINOGRAD)
def test_bn_definition(case, mask, rng, repro):
    """With integers nothing is rounded before the kink, and g must come out exact."""
    shape, d = case.shape, exact_draw(rng, case)
    dy, w = arguments(d, shape)
    branch = d.activation(shape.x_size)
    bn = bn_arguments(d, shape, mask)
    args = (dy, w, branch, *bn, RELU, 0.0, *geometry(shape))
    g, sums = OPS.conv_dgrad_bn(*args)
    want_g, _ = reference.conv_dgrad_bn(*map(as_double, args))
    assert torch.equal(g, want_g.to(g.dtype)), repro
    y, mean, rstd = (t.double() for t in bn[:3])
    want_sums = reference.bn.bn_sums(g.double(), y, mean, rstd)
    assert torch.allclose(sums.double(), want_sums, rtol=1e-5, atol=1e-3), repro


@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@over(
    [WINOGRAD[1], BANDS[0], BANDS[5], DIRECT[1], DIRECT[6], SPLIT[2]], EMULATED[1:2], WINOGRAD[1:2]
)
def test_acts(case, act, rng, repro):
    shape, d = case.shape, draw(rng, case.dtype)
    dy, w = arguments(d, shape)
    y, *bn, _ = bn_arguments(d, shape)
    branch = gradient_at(d, shape.x_size, y, bn[2], bn[3])
    args = (dy, w, branch, y, *bn, None, act, 0.1, *geometry(shape))
    rows = max(shape.n * shape.h * shape.w, length_of(shape))
    limit = {"amplification": case.amplification}
    check("conv_dgrad_bn", shape.x_size, rows, repro, *args, **limit)


@over(SHAPES, EMULATED_SHAPES, WINOGRAD)
def test_integers_are_exact(case, rng):
    shape, d = case.shape, exact_draw(rng, case)
    args = (*arguments(d, shape), d.activation(shape.x_size), list(shape.x_size), *geometry(shape))
    want = reference.conv_dgrad(*map(as_double, args))
    with own_if_served(case, *args[:2]):
        assert torch.equal(OPS.conv_dgrad(*args), want.to(case.dtype))


@DTYPES
@pytest.mark.parametrize("shape", SPECIAL, ids=lambda s: s.id)
def test_nan_and_infinity(shape, dtype, rng):
    dy, w = arguments(draw(rng, dtype, exact=True), shape)
    args = (put_specials(dy), w, None, list(shape.x_size), *geometry(shape))
    want = reference.conv_dgrad(*map(as_double, args)).to(dtype)
    with OwnKernels():
        same_with_specials(OPS.conv_dgrad(*args), want)


@over([], EMULATED)
def test_contiguous_activations(case, rng, repro):
    """Everything in NCHW, the mask's bits too; dy a part of a larger tensor; an fp32 filter."""
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    dy, w = arguments(d, shape, "nchw")
    w = w.to(vector_dtype(case.dtype))
    y, *rest = bn_arguments(d, shape)
    y, branch = y.contiguous(), d.activation(shape.x_size).contiguous()
    dy = dy.repeat(1, 2, 1, 2)[:, : shape.k, :, ::2]
    args = (dy, w, branch, list(shape.x_size), *geometry(shape))
    dx = OPS.conv_dgrad(dy.contiguous(), *args[1:])
    assert dx.is_contiguous()
    assert torch.equal(dx, reference.conv_dgrad(*map(as_double, args)).to(case.dtype)), repro
    ones = torch.ones_like(rest[0])
    mask = OPS.bn_act_fwd_mask(y, ones, 0 * ones, None, None, None, RELU, 0.0)[1]
    for bits in (None, mask):
        args = (dy, w, branch, y, *rest[:-1], bits, RELU, 0.0, *geometry(shape))
        g, sums = OPS.conv_dgrad_bn(*args)
        want_g, _ = reference.conv_dgrad_bn(*map(as_double, args))
        assert torch.equal(g, want_g.to(case.dtype)), repro
        assert g.stride() == y.stride()
        vectors = (t.double() for t in (y, *rest[:2]))
        want_sums = reference.bn.bn_sums(g.double(), *vectors)
        assert torch.allclose(sums.double(), want_sums, rtol=1e-5, atol=1e-3), repro


@over([*WINOGRAD[-2:], *BANDS, *DIRECT, *SPLIT], [*EMULATED[1:3], EMULATED[-1]], WINOGRAD[-2:])
def test_own_kernels_and_the_same_bits(case, rng):
    shape, d = case.shape, draw(rng, case.dtype)
    args = (*arguments(d, shape), None, *bn_arguments(d, shape), RELU, 0.0, *geometry(shape))
    with OwnKernels():
        same_bits(case, "conv_dgrad_bn", *args)


def test_refuses_what_would_read_outside(each_backend, rng):
    shape = DIRECT[0]
    d = draw(rng)
    dy, w = arguments(d, shape)
    y, mean, rstd, scale, bias, _ = bn_arguments(d, shape)
    conv = geometry(shape)
    short_dy = dy[:, :, 1:].contiguous(memory_format=torch.channels_last)
    bad_calls = {
        "dy: not the size": (dy[:1], w, None, list(shape.x_size), *conv),
        "dy: not the size of": (short_dy, w, None, list(shape.x_size), *conv),
        "w: expected": (dy, w[:, :5], None, list(shape.x_size), *conv),
        "branch: expected size": (dy, w, y[:1], list(shape.x_size), *conv),
        "branch: dtype": (dy, w, y.half(), list(shape.x_size), *conv),
        "branch: memory layout": (dy, w, y.contiguous(), list(shape.x_size), *conv),
    }
    for message, args in bad_calls.items():
        with pytest.raises(RuntimeError, match=message):
            OPS.conv_dgrad(*args)
    vectors = (mean, rstd, scale, bias)
    for i in range(4):
        for bad in (vectors[i][:-1], vectors[i].double()):
            given = (*vectors[:i], bad, *vectors[i + 1 :])
            with pytest.raises(RuntimeError, match="mean, rstd, scale, bias: expected"):
                OPS.conv_dgrad_bn(dy, w, None, y, *given, None, RELU, 0.0, *conv)
    short = torch.zeros(y.numel() // 8 - 1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="mask: expected"):
        OPS.conv_dgrad_bn(dy, w, None, y, *vectors, short, RELU, 0.0, *conv)
    if each_backend in ("cuda", "cuda-emulated"):
        with pytest.raises(RuntimeError, match="y_prev: dtype"):
            OPS.conv_dgrad_bn(dy, w, None, y.half(), *vectors, None, RELU, 0.0, *conv)
