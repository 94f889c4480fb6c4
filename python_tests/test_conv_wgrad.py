"""conv_wgrad: our kernels against the definition."""

from __future__ import annotations

import pytest
import torch
from bn_cases import GELU, IDENTITY, LEAKY, OPS, RELU, SILU, as_double, check
from conv_cases import (
    BANDS,
    DIRECT,
    DTYPES,
    EMULATED,
    EMULATED_SHAPES,
    NO_PROLOGUE,
    SHAPES,
    SPECIAL,
    SPLIT,
    WINOGRAD,
    OwnKernels,
    draw,
    filter_of,
    geometry,
    over,
    own_if_served,
    own_kernels,  # noqa: F401 - applies to all tests here
    prologue,
    put_specials,
    same_bits,
    same_with_specials,
)
from shapes import ConvShape

from resnet_kernels import reference


def arguments(d, shape, layout="nhwc"):
    return d.activation(shape.y_size), d.activation(shape.x_size), filter_of(d, shape, layout)


def pixels(shape):
    return max(shape.n * shape.y_size[2] * shape.y_size[3], 1)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@over(SHAPES, EMULATED_SHAPES)
def test_definition(case, layout, rng, repro):
    """dw lies in the strides of w."""
    shape, d = case.shape, draw(rng, case.dtype)
    args = arguments(d, shape, layout)
    for before in (NO_PROLOGUE, prologue(d, shape.c, RELU)):
        ours = check(
            "conv_wgrad", shape.w_size, pixels(shape), repro, *args, *before, *geometry(shape)
        )
        assert ours[0].stride() == args[2].stride()


@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@over([WINOGRAD[6], BANDS[5], DIRECT[1], DIRECT[6]], EMULATED[1:2])
def test_prologue(case, act, rng, repro):
    shape, d = case.shape, draw(rng, case.dtype)
    before = prologue(d, shape.c, act)
    args = (*arguments(d, shape), *before, *geometry(shape))
    check("conv_wgrad", shape.w_size, pixels(shape), repro, *args)


@over(SHAPES, EMULATED_SHAPES)
def test_integers_are_exact(case, rng):
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    args = (*arguments(d, shape), *prologue(d, shape.c, RELU), *geometry(shape))
    want = reference.conv_wgrad(*map(as_double, args))
    with own_if_served(case, *args[1:3]):
        assert torch.equal(OPS.conv_wgrad(*args), want.to(case.dtype))


@DTYPES
@pytest.mark.parametrize("shape", SPECIAL, ids=lambda s: s.id)
def test_nan_and_infinity(shape, dtype, rng):
    """Both operands have them."""
    dy, x, w = arguments(draw(rng, dtype, exact=True), shape)
    args = (dy, put_specials(x), w, *NO_PROLOGUE, *geometry(shape))
    dy[0, 0, 1, 1] = float("inf")
    want = reference.conv_wgrad(*map(as_double, args)).to(dtype)
    with OwnKernels():
        same_with_specials(OPS.conv_wgrad(*args), want)


@DTYPES
def test_nothing_of_an_earlier_call_stays(dtype, rng):
    """All NaN, with more pixels, in the memory that a thread keeps."""
    d = draw(rng, dtype, exact=True)
    before = arguments(d, ConvShape(2, 33, 20, 21, 9, 3, 3, (1, 1), (1, 1)))
    for t in before[:2]:
        t.fill_(float("nan"))
    shape = ConvShape(1, 33, 5, 5, 9, 3, 3, (2, 2), (1, 1))
    args = (*arguments(d, shape), *NO_PROLOGUE, *geometry(shape))
    want = reference.conv_wgrad(*map(as_double, args)).to(dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        OPS.conv_wgrad(*before, *NO_PROLOGUE, (1, 1), (1, 1), (1, 1), 1, False)
        assert torch.equal(OPS.conv_wgrad(*args), want)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("w_dtype", [torch.float32, torch.float16, torch.float64])
@over([], EMULATED[1:2])
def test_parameter_of_another_dtype(case, w_dtype, rng):
    """The sums are rounded to the parameter's dtype, fp32 of 16-bit activations not at all."""
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    dy, x, w = arguments(d, shape)
    args = (*(t.contiguous() for t in (dy, x)), w.to(w_dtype), *NO_PROLOGUE, *geometry(shape))
    dw = OPS.conv_wgrad(*args)
    assert dw.dtype == w_dtype
    assert torch.equal(dw, reference.conv_wgrad(*map(as_double, args)).to(w_dtype))


@over([], EMULATED)
def test_any_strides(case, rng):
    """Activations as parts of larger tensors and expanded, a filter with its axes swapped."""
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    dy, x, w = arguments(d, shape)
    dy = dy[:, :, :1].expand(shape.y_size)
    x = x.repeat(1, 2, 1, 2)[:, : shape.c, :, ::2]
    w = w.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    args = (dy, x, w, *prologue(d, shape.c, RELU), *geometry(shape))
    dw = OPS.conv_wgrad(*args)
    assert dw.stride() == torch.empty_like(w).stride()
    assert torch.equal(dw, reference.conv_wgrad(*map(as_double, args)).to(case.dtype))


@over([*WINOGRAD[-2:], *BANDS, *DIRECT, *SPLIT], [EMULATED[1], EMULATED[2], EMULATED[-1]])
def test_own_kernels_and_the_same_bits(case, rng):
    shape, d = case.shape, draw(rng, case.dtype)
    with OwnKernels():
        before = prologue(d, shape.c, RELU)
        same_bits(case, "conv_wgrad", *arguments(d, shape), *before, *geometry(shape))


def test_refuses_what_would_read_outside(each_backend, rng):
    shape = DIRECT[0]
    d = draw(rng)
    dy, x, w = arguments(d, shape)
    v = d.vector(shape.c)
    bad_calls = {
        "dy: not the size": (dy[:1], x, w, *NO_PROLOGUE),
        "w: expected": (dy, x, w[:, :5], *NO_PROLOGUE),
        "in_scale": (dy, x, w, v[:-1], v, RELU, 0.0),
        "in_bias": (dy, x, w, v, v.double(), RELU, 0.0),
        "give both or none": (dy, x, w, v, None, RELU, 0.0),
        "act: unknown": (dy, x, w, v, v, 17, 0.0),
    }
    if each_backend in ("cuda", "cuda-emulated"):
        bad_calls["dy: dtype"] = (dy.half(), x, w, *NO_PROLOGUE)
    for message, args in bad_calls.items():
        with pytest.raises(RuntimeError, match=message):
            OPS.conv_wgrad(*args, *geometry(shape))
