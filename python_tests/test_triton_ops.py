"""Every Triton kernel against its definition: on a GPU, emulated from sm_80 code, or interpreted.

The short list; the tests of the primitives run on these backends with -m full.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from backends import BACKENDS, available, using
from bn_cases import (
    GELU,
    IDENTITY,
    LEAKY,
    OPS,
    RELU,
    SILU,
    SLOPE,
    Draw,
    as_double,
    case_id,
    check,
    rows_of,
    tuple_of,
)
from conv_cases import NO_PROLOGUE, filter_of, gradient_at, prologue
from shapes import DTYPE_NAMES, ConvShape
from test_gradcheck import check as gradcheck
from torch import Tensor

from resnet_kernels import reference
from resnet_kernels.ops.library import fallback_counts
from resnet_kernels.reference.bn import bn_sums

BACKEND = next((name for name in available() if name.startswith("triton")), "")
CASES = [(torch.float32, "nhwc"), (torch.bfloat16, "nchw")]
# An odd number of channels; several tiles of pixels and blocks of channels.
SIZES = [(2, 17, 9, 5), (1, 66, 37, 5)]
NO_EPILOGUE = (None, None, None, IDENTITY, 0.0)
STRIDED = ConvShape(2, 17, 9, 6, 33, 3, 3, (2, 2), (1, 1))
STEM = ConvShape(1, 3, 15, 13, 8, 7, 7, (2, 2), (3, 3))
DILATED = ConvShape(1, 24, 9, 7, 20, 3, 3, (2, 1), (1, 2), (1, 2), 2)
DEPTHWISE = ConvShape(2, 6, 8, 6, 6, 3, 5, (1, 1), (1, 2), (1, 1), 6)
# Sizes that are multiples of 16: 16-byte copies, asynchronous where nothing touches them.
ALIGNED = ConvShape(2, 64, 8, 8, 80, 1, 1)
# One dtype a shape: each costs the compilation of several kernels.
CONVOLUTIONS = [
    (STRIDED, torch.bfloat16),
    (STRIDED, torch.float32),
    (STEM, torch.float32),
    (DILATED, torch.float16),
    (DEPTHWISE, torch.float32),
    (ALIGNED, torch.bfloat16),
]
over_convolutions = pytest.mark.parametrize(
    ("shape", "dtype"), CONVOLUTIONS, ids=lambda v: DTYPE_NAMES.get(v) or v.id
)


@pytest.fixture(autouse=True)
def triton_backend() -> Iterator[None]:
    """Primitives by OPS are Triton's, and none of them falls back."""
    with using(BACKEND):
        fallback_counts(reset=True)
        yield
        assert fallback_counts() == {}


def geometry(shape: ConvShape, tf32: bool = False) -> tuple:
    return shape.stride, shape.padding, shape.dilation, shape.groups, tf32


def assert_exact(op: str, *args) -> tuple[Tensor, ...]:
    """Small integers leave nothing to round before the result itself is."""
    ours = tuple_of(getattr(OPS, op)(*args))
    wants = tuple_of(getattr(reference, op)(*map(as_double, args)))
    for mine, want in zip(ours, wants, strict=True):
        assert torch.equal(mine, want.to(mine.dtype)), op
    return ours


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_bn_forward(case, rng, repro):
    d = Draw(rng, case)
    for size in SIZES:
        y, r = d.activation(size), d.activation(size)
        check("bn_stats", size, rows_of(size), repro, y)
        for act in range(5):
            vectors = [d.vector(size[1]) for _ in range(4)]
            args = (y, *vectors[:2], r, *vectors[2:], act, SLOPE)
            check("bn_act_fwd", size, 4, repro, *args)
        d_exact = Draw(rng, case, exact=True)
        y, r = d_exact.activation(size), d_exact.activation(size)
        vectors = [d_exact.vector(size[1]) for _ in range(2)]
        assert_exact("bn_act_fwd_mask", y, *vectors, r, None, None, RELU, 0.0)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_bn_backward(case, rng, repro):
    d = Draw(rng, case)
    for size in SIZES:
        y, y2 = d.activation(size), d.activation(size)
        bn, bn2 = d.bn(size[1]), d.bn(size[1])
        mask = reference.bn_act_fwd_mask(y, *bn[2:], y2, None, None, RELU, 0.0)[1]
        dz = gradient_at(d, size, y, bn[2], bn[3])
        rows = rows_of(size)
        for act in (RELU, GELU, SILU, LEAKY):
            check("bn_act_bwd_reduce", size, rows, repro, dz, y, *bn, act, SLOPE)
        check("bn_act_bwd_reduce_add", size, rows, repro, dz, y, *bn, None, mask, RELU, 0.0)
        check("bn_act_bwd_reduce_dual", size, rows, repro, dz, y, *bn, y2, *bn2, None, SILU, 0.0)
        check("bn_bwd_apply", size, 4, repro, dz, y, bn[0], torch.stack(bn[:3]), *bn[2:], RELU, 0.0)


def test_statistics_keep_the_digits_of_a_large_mean(rng):
    """Mean 1000 and standard deviation 1, of a tensor and of a convolution's output."""
    x = (torch.randn((2, 32, 33, 32), generator=rng) + 1000).contiguous(
        memory_format=torch.channels_last
    )
    w = torch.eye(32)[:, :, None, None]
    y, stats = OPS.conv_fwd_stats(x, w, *NO_PROLOGUE, (1, 1), (0, 0), (1, 1), 1, False)
    for values, found in ((x, OPS.bn_stats(x)), (y, stats)):
        var, mean = torch.var_mean(values.double(), (0, 2, 3), unbiased=False)
        assert torch.equal(found[0], torch.full((32,), 2.0 * 33 * 32))
        assert torch.allclose(found[1].double(), mean, rtol=2e-7)
        assert torch.allclose((found[2] / found[0]).double(), var, rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_follow_torch(momentum, rng):
    module = torch.nn.BatchNorm2d(8, momentum=momentum)
    mean, var, count = torch.zeros(8), torch.ones(8), torch.tensor(0)
    for step in range(5):
        x = torch.randn((2, 8, 3, 3), generator=rng) * (1 + step % 3) + step
        module(x)
        ours = OPS.bn_finalize(
            OPS.bn_stats(x)[None], None, None, None, mean, var, count, momentum, 1e-5
        )
        assert ours[4].item() == 18
    assert count == module.num_batches_tracked
    assert torch.allclose(mean, module.running_mean, rtol=2e-6, atol=1e-6)
    assert torch.allclose(var, module.running_var, rtol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ops_on_vectors(dtype, rng, repro):
    gamma, beta, bias, mean = (torch.randn(37, generator=rng, dtype=dtype) for _ in range(4))
    var = torch.rand(37, generator=rng, dtype=dtype) + 0.1
    stats = torch.stack([torch.stack([torch.full_like(var, n), mean * n, var]) for n in (3, 0, 8)])
    check("bn_finalize", (1, 37, 1, 1), 8, repro, stats, gamma, beta, *[None] * 4, 0.1, 1e-5)
    check("bn_affine", (1, 37, 1, 1), 8, repro, mean, var, gamma, beta, bias, 1e-5)
    sums, count = torch.stack([mean, beta]), torch.full((1,), 11, dtype=dtype)
    check("bn_bwd_finalize", (1, 37, 1, 1), 8, repro, sums, gamma, var, count)


@over_convolutions
def test_conv_fwd(shape, dtype, rng, repro):
    """Prologue with padding, statistics as stored, epilogue of every part; integers are exact."""
    for exact in (False, True):
        d = Draw(rng, (dtype, "nhwc"), exact)
        x, w = d.activation(shape.x_size), filter_of(d, shape)
        before = prologue(d, shape.c, RELU)
        after = (d.vector(shape.k), d.vector(shape.k), d.activation(shape.y_size), RELU, 0.0)
        args = (x, w, *before, *after, *geometry(shape))
        if exact:
            assert_exact("conv_fwd", *args)
        else:
            check("conv_fwd", shape.y_size, shape.reduction_length, repro, *args)
        y, stats = OPS.conv_fwd_stats(x, w, *before, *geometry(shape))
        want = reference.bn_stats(y.double())
        assert torch.allclose(stats.double(), want, rtol=1e-4, atol=1e-4), repro


@over_convolutions
def test_conv_dgrad(shape, dtype, rng, repro):
    """With a branch; then masked, behind a batch norm: g exact, and its sums."""
    d = Draw(rng, (dtype, "nhwc"))
    length = shape.k // shape.groups * shape.r * shape.s
    dy, w = d.activation(shape.y_size), filter_of(d, shape)
    args = (dy, w, d.activation(shape.x_size), list(shape.x_size), *geometry(shape))
    check("conv_dgrad", shape.x_size, length, repro, *args)
    d = Draw(rng, (dtype, "nhwc"), exact=True)
    dy, w, y = d.activation(shape.y_size), filter_of(d, shape), d.activation(shape.x_size)
    bn = d.bn(shape.c)
    mask = reference.bn_act_fwd_mask(y, *bn[2:], None, None, None, RELU, 0.0)[1]
    args = (dy, w, None, y, *bn, mask, RELU, 0.0, *geometry(shape))
    g, sums = OPS.conv_dgrad_bn(*args)
    assert torch.equal(g, reference.conv_dgrad_bn(*map(as_double, args))[0].to(dtype)), repro
    want = bn_sums(g.double(), y.double(), *(v.double() for v in bn[:2]))
    assert torch.allclose(sums.double(), want, rtol=1e-5, atol=1e-3), repro


@over_convolutions
def test_conv_wgrad(shape, dtype, rng, repro):
    """Into an fp32 parameter whose axes lie in another order."""
    d = Draw(rng, (dtype, "nhwc"), exact=True)
    dy, x = d.activation(shape.y_size), d.activation(shape.x_size)
    w = filter_of(d, shape).float().permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    args = (dy, x, w, *prologue(d, shape.c, RELU), *geometry(shape))
    (dw,) = assert_exact("conv_wgrad", *args)
    assert dw.stride() == w.stride()


def test_tf32_rounds_its_operands(rng, repro):
    d = Draw(rng, (torch.float32, "nhwc"))
    x, w = d.activation(ALIGNED.x_size), filter_of(d, ALIGNED)
    args = (x, w, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(ALIGNED, tf32=True))
    y = OPS.conv_fwd(*args).double()
    rounded = (reference.round_tf32(x).double(), reference.round_tf32(w).double())
    want = reference.conv_fwd(*rounded, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(ALIGNED))
    assert (y - want).abs().max() < 1e-5, repro


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_pools(case, rng, repro):
    """Bit for bit with ties, NaN and a prologue; gradients by the rule."""
    window = ((3, 3), (2, 2), (1, 1), (1, 1))
    d = Draw(rng, case, exact=True)
    for size in SIZES:
        x = d.activation(size)
        x[0, 3, 4, 2] = torch.nan
        affine = (d.vector(size[1]), d.vector(size[1]), LEAKY, 0.5)
        z, indices = OPS.max_pool_fwd(x, *affine, *window, True)
        want, want_indices = reference.max_pool_fwd(x, *affine, *window, True)
        assert torch.equal(z.isnan(), want.isnan()), repro
        assert torch.equal(z.nan_to_num(), want.nan_to_num()), repro
        assert torch.equal(indices, want_indices), repro
        dz = d.activation(tuple(z.shape))
        assert_exact(
            "max_pool_bwd", dz, indices.contiguous(memory_format=_format(dz)), size, *window
        )
        real = Draw(rng, case)
        pool = ((3, 2), (2, 1), (1, 1), True, False)
        z = check("avg_pool_fwd", size, 9, repro, real.activation(size), *affine, *pool)[0]
        dz = real.activation(tuple(z.shape))
        check("avg_pool_bwd", size, 9, repro, dz, list(size), *pool)


def _format(t: Tensor) -> torch.memory_format:
    return torch.contiguous_format if t.is_contiguous() else torch.channels_last


def test_gradcheck_of_a_layer(rng):
    """The whole chain in fp64, forward and backward."""
    gradcheck("conv_bn_act", "relu", True, rng, BACKENDS[BACKEND][0])


def test_two_runs_agree_bit_for_bit(rng):
    """Many tiles and splits, whose partial results are merged, exactly with integers."""
    d = Draw(rng, (torch.bfloat16, "nhwc"), exact=True)
    shape = ConvShape(3, 17, 20, 21, 33, 3, 3, (2, 2), (1, 1))
    x, w, dy = d.activation(shape.x_size), filter_of(d, shape), d.activation(shape.y_size)
    calls = {
        "conv_fwd_stats": (x, w, *NO_PROLOGUE, *geometry(shape)),
        "conv_wgrad": (dy, x, w, *NO_PROLOGUE, *geometry(shape)),
        "bn_stats": (x,),
    }
    for op, args in calls.items():
        first, second = (tuple_of(getattr(OPS, op)(*args)) for _ in range(2))
        if op == "conv_wgrad":
            assert_exact(op, *args)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), op
