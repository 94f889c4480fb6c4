"""conv_fwd, conv_fwd_stats: our fp32 kernels on the CPU against the definition."""

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
    assert_deterministic,
    check,
)
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
from shapes import ConvShape

from resnet_kernels import reference
from resnet_kernels.ops.conv_kernel import TORCH, cpu_conv_kernel
from resnet_kernels.ops.library import fallback_counts

NO_EPILOGUE = (None, None, None, IDENTITY, 0.0)


def arguments(d, shape, layout="nhwc"):
    return d.activation(shape.x_size), filter_of(d, shape, layout)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_definition(shape, layout, rng, repro):
    """Every shape, filters in both layouts: plain, and behind a batch norm with statistics."""
    d = draw(rng)
    x, w = arguments(d, shape, layout)
    length, size = shape.reduction_length, shape.y_size
    check("conv_fwd", size, length, repro, x, w, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(shape))
    before = prologue(d, shape.c, RELU)
    y, _ = check("conv_fwd_stats", size, length, repro, x, w, *before, *geometry(shape))
    # Statistics are those of y as stored.
    check_stats(y, OPS.conv_fwd_stats(x, w, *before, *geometry(shape))[1], repro)


def check_stats(y, stats, repro):
    exact = reference.bn_stats(y.double())
    scale = max(exact[1].abs().max().item(), exact[2].max().item() ** 0.5) if y.numel() else 1.0
    assert torch.equal(stats[0].double(), exact[0]), repro
    assert (stats[1] - exact[1]).abs().max() <= 1e-5 * scale, repro
    assert torch.allclose(stats[2].double(), exact[2], rtol=1e-4, atol=1e-6), repro


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@pytest.mark.parametrize("shape", [WINOGRAD[1], DIRECT[1], DIRECT[6]], ids=lambda s: s.id)
def test_epilogue(shape, act, residual, rng, repro):
    d = draw(rng)
    x, w = arguments(d, shape)
    added = d.activation(shape.y_size) if residual else None
    for scale in (d.vector(shape.k), None):
        for bias in (d.vector(shape.k), None):
            tail = (scale, bias, added, act, 0.1, *geometry(shape))
            check(
                "conv_fwd", shape.y_size, shape.reduction_length, repro, x, w, *NO_PROLOGUE, *tail
            )


@pytest.mark.parametrize("act", [IDENTITY, RELU, GELU, SILU, LEAKY])
@pytest.mark.parametrize("shape", [WINOGRAD[1], DIRECT[1], DIRECT[6]], ids=lambda s: s.id)
def test_prologue(shape, act, rng, repro):
    """Taps outside the image are zero, not act(bias)."""
    d = draw(rng)
    x, w = arguments(d, shape)
    before = prologue(d, shape.c, act)
    args = (x, w, *before, *NO_EPILOGUE, *geometry(shape))
    check("conv_fwd", shape.y_size, shape.reduction_length, repro, *args)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_integers_are_exact(shape, rng):
    d = draw(rng, exact=True)
    x, w = arguments(d, shape)
    args = (x, w, *prologue(d, shape.c, RELU), *NO_EPILOGUE, *geometry(shape))
    want = reference.conv_fwd(*map(as_double, args))
    assert torch.equal(OPS.conv_fwd(*args).double(), want)


@pytest.mark.parametrize("shape", [*WINOGRAD[-2:], *DIRECT], ids=lambda s: s.id)
def test_own_kernels_and_the_same_bits(shape, rng):
    d = draw(rng)
    x, w = arguments(d, shape)
    with OwnKernels():
        before = prologue(d, shape.c, RELU)
        assert_deterministic("conv_fwd_stats", x, w, *before, *geometry(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [WINOGRAD[0], DIRECT[0], DIRECT[5]], ids=lambda s: s.id)
@pytest.mark.parametrize("choice", ["auto", "own", "torch"])
def test_what_is_said_of_the_kernel_is_what_runs(shape, dtype, choice, rng, monkeypatch):
    monkeypatch.setenv("RNK_CPU_CONV", choice)
    x, w = arguments(Draw(rng, (dtype, "nhwc")), shape)
    conv = geometry(shape)
    fallback_counts(reset=True)
    OPS.conv_fwd(x, w.to(dtype), *NO_PROLOGUE, *NO_EPILOGUE, *conv)
    said = cpu_conv_kernel(shape.w_size, dtype, *conv[:4])
    assert (said == TORCH) == bool(fallback_counts()), said


def test_statistics_of_a_large_mean(rng, repro):
    """Mean 1000, standard deviation 1."""
    for shape in (
        ConvShape(4, 32, 16, 16, 32, 3, 3, (1, 1), (1, 1)),
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


def test_views_of_larger_tensors_stay_inside(rng):
    """Nothing is written beside y, whatever lies beside x is not read into it."""
    shape = WINOGRAD[2]
    d = draw(rng)
    x, w = arguments(d, shape)
    padded = torch.full((x.numel() + 4096,), float("nan"))
    inner = padded[2048 : 2048 + x.numel()].as_strided(x.shape, x.stride(), 2048).copy_(x)
    for args in ((x, w), (inner, w)):
        y = OPS.conv_fwd(*args, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(shape))
        assert y.isfinite().all()
