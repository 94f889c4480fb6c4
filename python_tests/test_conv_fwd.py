"""conv_fwd, conv_fwd_stats: our kernels against the definition."""

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
    Draw,
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
    NO_PROLOGUE,
    SHAPES,
    SPECIAL,
    SPLIT,
    WINOGRAD,
    OwnKernels,
    draw,
    exact_draw,
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
from resnet_kernels.ops.conv_kernel import TORCH, cpu_conv_kernel
from resnet_kernels.ops.library import fallback_counts

NO_EPILOGUE = (None, None, None, IDENTITY, 0.0)


def arguments(d, shape, layout="nhwc"):
    return d.activation(shape.x_size), filter_of(d, shape, layout)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@over(SHAPES, EMULATED_SHAPES, WINOGRAD)
def test_definition(case, layout, rng, repro):
    """Every shape, filters in both layouts: plain, and behind a batch norm with statistics."""
    shape, d = case.shape, draw(rng, case.dtype)
    x, w = arguments(d, shape, layout)
    length, size = shape.reduction_length, shape.y_size
    args = (size, length, repro, x, w)
    limit = {"amplification": case.amplification}
    check("conv_fwd", *args, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(shape), **limit)
    before = prologue(d, shape.c, RELU)
    y, stats = OPS.conv_fwd_stats(x, w, *before, *geometry(shape))
    no_stats = (*args, *before, *NO_EPILOGUE, *geometry(shape))
    assert torch.equal(check("conv_fwd", *no_stats, **limit)[0], y), repro
    check_stats(y, stats, repro)


def check_stats(y, stats, repro):
    """Statistics are those of y as stored."""
    exact = reference.bn_stats(y.double())
    scale = max(exact[1].abs().max().item(), exact[2].max().item() ** 0.5) if y.numel() else 1.0
    assert torch.equal(stats[0].double(), exact[0]), repro
    assert (stats[1] - exact[1]).abs().max() <= 1e-5 * scale, repro
    assert torch.allclose(stats[2].double(), exact[2], rtol=1e-4, atol=1e-6), repro


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@over(
    [WINOGRAD[1], BANDS[0], BANDS[5], DIRECT[1], DIRECT[6], SPLIT[2]], EMULATED[1:2], WINOGRAD[1:2]
)
def test_epilogue(case, act, residual, rng, repro):
    shape, d = case.shape, draw(rng, case.dtype)
    x, w = arguments(d, shape)
    added = d.activation(shape.y_size) if residual else None
    head = (shape.y_size, shape.reduction_length, repro, x, w)
    for scale in (d.vector(shape.k), None):
        for bias in (d.vector(shape.k), None):
            args = (*head, *NO_PROLOGUE, scale, bias, added, act, 0.1, *geometry(shape))
            check("conv_fwd", *args, amplification=case.amplification)


@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@over(
    [WINOGRAD[1], BANDS[0], BANDS[5], DIRECT[1], DIRECT[6], SPLIT[2]], EMULATED[1:2], WINOGRAD[1:2]
)
def test_prologue(case, act, rng, repro):
    """Taps outside the image are zero, not act(bias)."""
    shape, d = case.shape, draw(rng, case.dtype)
    x, w = arguments(d, shape)
    before = prologue(d, shape.c, act)
    args = (x, w, *before, *NO_EPILOGUE, *geometry(shape))
    limit = {"amplification": case.amplification}
    check("conv_fwd", shape.y_size, shape.reduction_length, repro, *args, **limit)


@over(SHAPES, EMULATED_SHAPES, WINOGRAD)
def test_integers_are_exact(case, rng):
    shape, d = case.shape, exact_draw(rng, case)
    x, w = arguments(d, shape)
    args = (x, w, *prologue(d, shape.c, RELU), *NO_EPILOGUE, *geometry(shape))
    want = reference.conv_fwd(*map(as_double, args))
    with own_if_served(case, x, w):
        assert torch.equal(OPS.conv_fwd(*args), want.to(case.dtype))


@pytest.mark.parametrize("act", [IDENTITY, RELU])
@DTYPES
@pytest.mark.parametrize("shape", SPECIAL, ids=lambda s: s.id)
def test_nan_and_infinity(shape, dtype, act, rng):
    d = draw(rng, dtype, exact=True)
    x, w = arguments(d, shape)
    ones = torch.ones(shape.c)
    before = NO_PROLOGUE if act == IDENTITY else (ones, 0 * ones, act, 0.0)
    args = (put_specials(x), w, *before, *NO_EPILOGUE, *geometry(shape))
    want = reference.conv_fwd(*map(as_double, args)).to(dtype)
    with OwnKernels():
        same_with_specials(OPS.conv_fwd(*args), want)


@over(
    [*WINOGRAD[-2:], *BANDS, *DIRECT, *SPLIT],
    [EMULATED[1], EMULATED[2], EMULATED[-1]],
    WINOGRAD[-2:],
)
def test_own_kernels_and_the_same_bits(case, rng):
    shape, d = case.shape, draw(rng, case.dtype)
    x, w = arguments(d, shape)
    with OwnKernels():
        before = prologue(d, shape.c, RELU)
        same_bits(case, "conv_fwd_stats", x, w, *before, *geometry(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "shape",
    [WINOGRAD[0], DIRECT[0], DIRECT[2], DIRECT[5], ConvShape(2, 1, 8, 8, 4, 3, 3, (1, 1), (1, 1))],
    ids=lambda s: s.id,
)
@pytest.mark.parametrize("choice", ["auto", "own", "torch", "winograd4x4"])
def test_what_is_said_of_the_kernel_is_what_runs(shape, dtype, choice, rng, monkeypatch):
    monkeypatch.setenv("RNK_CPU_CONV", choice)
    x, w = arguments(Draw(rng, (dtype, "nhwc")), shape)
    conv = geometry(shape)
    fallback_counts(reset=True)
    OPS.conv_fwd(x, w.to(dtype), *NO_PROLOGUE, *NO_EPILOGUE, *conv)
    said = cpu_conv_kernel(shape.w_size, dtype, *conv[:4])
    assert (said == TORCH) == bool(fallback_counts()), said


@pytest.mark.usefixtures("each_backend")
def test_statistics_of_a_large_mean(rng, repro):
    """Mean 1000, standard deviation 1."""
    for shape in (
        ConvShape(4, 32, 16, 16, 8, 3, 3, (1, 1), (1, 1)),
        ConvShape(4, 32, 16, 16, 8, 1, 1),
    ):
        d = draw(rng)
        x, w = d.activation(shape.x_size), torch.zeros(shape.w_size)
        centre = shape.r // 2
        w[:, :, centre, centre] = torch.eye(shape.k, 32)
        y, stats = OPS.conv_fwd_stats(x + 1000, w, *NO_PROLOGUE, *geometry(shape))
        std = (stats[2] / stats[0]).sqrt().double()
        exact = y.double().var((0, 2, 3), unbiased=False).sqrt()
        assert torch.allclose(std, exact, rtol=1e-4), repro


@pytest.mark.usefixtures("each_backend")
def test_views_of_larger_tensors_stay_inside(rng):
    """Nothing is written beside y, whatever lies beside x is not read into it."""
    shape = DIRECT[10]
    d = draw(rng)
    x, w = arguments(d, shape)
    padded = torch.full((x.numel() + 4096,), float("nan"))
    inner = padded[2048 : 2048 + x.numel()].as_strided(x.shape, x.stride(), 2048).copy_(x)
    for args in ((x, w), (inner, w)):
        y = OPS.conv_fwd(*args, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(shape))
        assert y.isfinite().all()


@over([], EMULATED)
def test_any_strides(case, rng):
    """NCHW in, NCHW out; x a part of a larger tensor, an fp32 filter with its axes swapped."""
    shape, d = case.shape, draw(rng, case.dtype, exact=True)
    x, w = arguments(d, shape)
    w = w.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0).to(vector_dtype(case.dtype))
    residual = d.activation(shape.y_size).contiguous()
    tail = (d.vector(shape.k), d.vector(shape.k), residual, RELU, 0.0, *geometry(shape))
    for view in (x.contiguous(), x.repeat(1, 2, 1, 2).contiguous()[:, : shape.c, :, ::2]):
        args = (view, w, *prologue(d, shape.c, RELU), *tail)
        y = OPS.conv_fwd(*args)
        assert y.is_contiguous()
        assert torch.equal(y, reference.conv_fwd(*map(as_double, args)).to(case.dtype))


def test_refuses_what_would_read_outside(each_backend, rng):
    shape = DIRECT[0]
    d = draw(rng)
    x, w = arguments(d, shape)
    v, u, y = d.vector(shape.c), d.vector(shape.k), d.activation(shape.y_size)
    bad_calls = {
        "w: expected": (x, w[:, :5], *NO_PROLOGUE, *NO_EPILOGUE),
        "in_scale": (x, w, v[:-1], v, RELU, 0.0, *NO_EPILOGUE),
        "in_bias": (x, w, v, v.double(), RELU, 0.0, *NO_EPILOGUE),
        "give both or none": (x, w, v, None, RELU, 0.0, *NO_EPILOGUE),
        "out_scale": (x, w, *NO_PROLOGUE, u[:-1], u, None, RELU, 0.0),
        "out_bias": (x, w, *NO_PROLOGUE, u, u.double(), None, RELU, 0.0),
        "residual: expected size": (x, w, *NO_PROLOGUE, None, None, y[:1], RELU, 0.0),
        "residual: dtype": (x, w, *NO_PROLOGUE, None, None, y.half(), RELU, 0.0),
        "residual: memory layout": (x, w, *NO_PROLOGUE, None, None, y.contiguous(), RELU, 0.0),
        "act: unknown": (x, w, *NO_PROLOGUE, None, None, None, 17, 0.0),
    }
    if each_backend in ("cuda", "cuda-emulated"):
        bad_calls["w: expected float32"] = (x, w.int(), *NO_PROLOGUE, *NO_EPILOGUE)
    for message, args in bad_calls.items():
        with pytest.raises(RuntimeError, match=message):
            OPS.conv_fwd(*args, *geometry(shape))
    with pytest.raises(RuntimeError, match="stride, padding, dilation: expected two"):
        OPS.conv_fwd(x, w, *NO_PROLOGUE, *NO_EPILOGUE, (1,) * 3, (0, 0), (1, 1), 1, False)
    with pytest.raises(RuntimeError, match="must be positive"):
        OPS.conv_fwd(x, w, *NO_PROLOGUE, *NO_EPILOGUE, (0, 1), (0, 0), (1, 1), 1, False)
