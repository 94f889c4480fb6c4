"""Batch norm, pooling and generic convolution kernels where other tests' cases do not reach.

Activations value by value, many rows a thread, many parts.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from activation_values import SMOOTH, check, inputs, slope, value, vectors
from bn_cases import FORMATS, IDENTITY, LEAKY, OPS, RELU, Draw, as_double
from conv_cases import NO_PROLOGUE
from igemm_cases import PLAIN, check_batch_norm_gradient
from oracle import assert_close_to_oracle
from shapes import ConvShape
from torch import Tensor

from resnet_kernels import emulator, reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Channels that are read in whole vectors, and that are not.
CASES = list(itertools.product(DTYPES, FORMATS, (16, 5)))
WINDOW = ((1, 1), (1, 1), (0, 0))


@pytest.fixture(autouse=True)
def emulated():
    """Without races, which are other tests' matter."""
    with emulator.active(detect_races=False):
        yield


def case_id(case: tuple) -> str:
    return f"{str(case[0])[6:]}-{case[1]}-C{case[2]}"


def pixels(case: tuple) -> Tensor:
    dtype, layout, channels = case
    x = inputs((1, 16, 20, channels), dtype).permute(0, 3, 1, 2)
    return x.clone(memory_format=FORMATS[layout])


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_values(case, act):
    x, act = pixels(case), SMOOTH[act]
    affine, want = vectors(case[2]), value(x, act)
    plain = (x, *affine, None, None, None, act, 0.0)
    added = (x, *affine, torch.zeros_like(x), None, None, act, 0.0)
    outputs = (
        OPS.bn_act_fwd(*plain),
        OPS.bn_act_fwd(*added),
        OPS.bn_act_fwd_mask(*plain)[0],
        OPS.bn_act_fwd_mask(*added)[0],
        OPS.max_pool_fwd(x, *affine, act, 0.0, *WINDOW, (1, 1), False)[0],
        OPS.avg_pool_fwd(x, *affine, act, 0.0, *WINDOW, False, True),
    )
    for z in outputs:
        check(z, want, want.abs(), case[0])


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_slopes(case, act):
    x, act = pixels(case), SMOOTH[act]
    one, zero, affine = torch.ones(case[2]), torch.zeros(case[2]), vectors(case[2])
    bn, dz = (zero, one, *affine), torch.ones_like(x)
    residual, abc = torch.zeros_like(x), torch.stack([one, zero, zero])
    gradients = (
        OPS.bn_act_bwd_reduce_add(dz, x, *bn, None, None, act, 0.0)[0],
        OPS.bn_act_bwd_reduce_add(dz, x, *bn, residual, None, act, 0.0)[0],
        OPS.bn_act_bwd_reduce_dual(dz, x, *bn, residual, *bn, None, act, 0.0)[0],
        OPS.bn_bwd_apply(dz, x, zero, abc, *affine, act, 0.0),
    )
    for g in gradients:
        check(g, *slope(x, act), case[0])


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_in_generic_convolutions(dtype, act, monkeypatch):
    monkeypatch.setenv("RNK_CUDA_CONV", "generic")
    x, act = pixels((dtype, "nhwc", 5)), SMOOTH[act]
    w, one, (scale, zero) = torch.ones(5, 1, 1, 1, dtype=dtype), torch.ones(5), vectors(5)
    geometry = (*WINDOW[1:], (1, 1), 5, False)
    want = value(x, act)
    y = OPS.conv_fwd(x, w, *NO_PROLOGUE, scale, None, None, act, 0.0, *geometry)
    check(y, want, want.abs(), dtype)
    y = OPS.conv_fwd(x, w, scale, zero, act, 0.0, None, None, None, 0, 0.0, *geometry)
    check(y, want, want.abs(), dtype)
    dy = torch.ones_like(x)
    g, _ = OPS.conv_dgrad_bn(dy, w, None, x, zero, one, scale, zero, None, act, 0.0, *geometry)
    check(g, *slope(x, act), dtype)
    # One pixel, and a group for every value.
    x = x.reshape(1, -1, 1, 1).contiguous(memory_format=torch.channels_last)
    channels, want = x.shape[1], value(x, act).view(-1, 1, 1, 1)
    w = torch.zeros(channels, 1, 1, 1)
    before, geometry = (*vectors(channels), act, 0.0), (*WINDOW[1:], (1, 1), channels, False)
    dw = OPS.conv_wgrad(torch.ones_like(x), x, w, *before, *geometry)
    check(dw, want, want.abs(), dtype)


# Groups of one channel and of several, depths of one stage of the filter and of more.
GENERIC = [
    ConvShape(2, 5, 6, 7, 5, 3, 3, (2, 1), (1, 1), (1, 1), 5),
    ConvShape(1, 6, 5, 4, 66, 3, 3, (1, 1), (1, 1), (1, 1), 2),
    ConvShape(1, 37, 3, 5, 35, 2, 1),
]


def generic_filter(d: Draw, shape: ConvShape, transposed: bool) -> Tensor:
    """With input channels or output channels next to each other in memory."""
    k, depth, r, s = shape.w_size
    if transposed:
        return d.activation((depth, k, r, s)).contiguous().transpose(0, 1)
    return d.activation(shape.w_size)


@pytest.mark.parametrize("transposed", [False, True], ids=["depth first", "lanes first"])
@pytest.mark.parametrize("shape", GENERIC, ids=lambda s: s.id)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_generic_convolutions_through_every_activation(dtype, shape, transposed, rng, monkeypatch):
    monkeypatch.setenv("RNK_CUDA_CONV", "generic")
    d = Draw(rng, (dtype, "nhwc"), True)
    dy, w = d.activation(shape.y_size), generic_filter(d, shape, transposed)
    y, branch, bn = d.activation(shape.x_size), d.activation(shape.x_size), d.bn(shape.c)
    bits = reference.bn_act_fwd_mask(y, *bn[2:], None, None, None, RELU, 0.0)[1]
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
    for add, mask, act in itertools.product((None, branch), (None, bits), (IDENTITY, RELU, LEAKY)):
        check_batch_norm_gradient((dy, w, add, y, *bn, mask, act, 0.5, *geometry))
    for act in (IDENTITY, RELU, LEAKY):
        before, after = (*bn[2:], act, 0.5), (d.vector(shape.k), d.vector(shape.k), None, act, 0.5)
        for args in ((branch, w, *before, *PLAIN), (branch, w, *NO_PROLOGUE, *after)):
            want = reference.conv_fwd(*map(as_double, (*args, *geometry)))
            assert torch.equal(OPS.conv_fwd(*args, *geometry), want.to(dtype))


@pytest.mark.parametrize("transposed", [False, True], ids=["depth first", "lanes first"])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_nothing_is_read_behind_a_generic_filter(dtype, transposed, rng, monkeypatch):
    """Of every depth up to that which is staged at once, and one more."""
    monkeypatch.setenv("RNK_CUDA_CONV", "generic")
    d = Draw(rng, (dtype, "nhwc"), True)
    for depth in range(1, 34):
        for shape in (ConvShape(1, depth, 1, 2, 5, 1, 1), ConvShape(1, 5, 1, 2, depth, 1, 1)):
            geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
            w = generic_filter(d, shape, transposed)
            x, dy = d.activation(shape.x_size), d.activation(shape.y_size)
            args = (x, w, *NO_PROLOGUE, *PLAIN)
            want = reference.conv_fwd(*map(as_double, (*args, *geometry)))
            assert torch.equal(OPS.conv_fwd(*args, *geometry), want.to(dtype))
            args = (None, shape.x_size, *geometry)
            want = reference.conv_dgrad(as_double(dy), as_double(w), *args)
            assert torch.equal(OPS.conv_dgrad(dy, w, *args), want.to(dtype))


# Channels by the parts of a filter gradient: one a group, which is not for the tensor cores; the
# last of them in each of the four that a thread has, 32 apart.
PARTS = {2: 6, 3: 38, 5: 70, 8: 230}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_parts_of_generic_filter_gradients(dtype, parts, rng):
    """A part has 256 pixels."""
    d, c = Draw(rng, (dtype, "nhwc"), True), PARTS[parts]
    shape = ConvShape(1, c, 16, 16 * parts, c, 1, 1, groups=c)
    dy, x = d.activation(shape.y_size), d.activation(shape.x_size)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for w_dtype in {dtype, wide}:
        w = torch.zeros(shape.w_size, dtype=w_dtype)
        args = (dy, x, w, d.vector(c), d.vector(c), LEAKY, 0.5, *geometry)
        want = reference.conv_wgrad(*map(as_double, args))
        assert torch.equal(OPS.conv_wgrad(*args), want.to(w_dtype))


# A thread of bn_stats sums blocks of 32 rows; 24 blocks of 256 threads share all rows. A plane ends
# in each of the rows that nvcc unrolls.
MANY_ROWS = {"nhwc": (1, 768, 35, 64), "nchw": (45, 24, 15, 25)}
# Three rows a thread, some four.
FEW_ROWS = {"nhwc": (1, 768, 1, 98), "nchw": (4, 24, 13, 15)}


@pytest.mark.parametrize("layout", MANY_ROWS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_statistics_of_many_rows(dtype, layout, rng):
    """Three blocks of rows a thread, the last one shorter; each far from the ones before."""
    n, c, h, w = MANY_ROWS[layout]
    x = torch.randint(-8, 9, (n, c, h, w), generator=rng).double()
    x += torch.linspace(100, 160, n * h).round().view(n, 1, h, 1)
    x = x.to(dtype).contiguous(memory_format=FORMATS[layout])
    check_statistics(x)


# Of numbers around 6; bf16's are 1/32 apart there, fp16's 1/256.
UNITS = {torch.float32: 2**-20, torch.float16: 2**-8, torch.bfloat16: 2**-5, torch.float64: 2**-49}


@pytest.mark.parametrize("sizes", [MANY_ROWS, FEW_ROWS], ids=["many", "few"])
@pytest.mark.parametrize("layout", MANY_ROWS)
@pytest.mark.parametrize("dtype", UNITS, ids=str)
def test_statistics_far_from_zero(dtype, layout, sizes, rng):
    """Mean / std of 10^6 in fp32: a mean without its second part costs M2 half of its digits, and
    so does, with few digits too, a sum that is not of differences from about the mean."""
    n, c, h, w = sizes[layout]
    x = torch.randint(-8, 9, (n, c, h, w), generator=rng).double()
    x += torch.linspace(0, 24, n * h).round().view(n, 1, h, 1)
    x = (x * UNITS[dtype] + 6.25).to(dtype)
    check_statistics(x.contiguous(memory_format=FORMATS[layout]))


@pytest.mark.parametrize("layout", MANY_ROWS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_statistics_of_a_step(dtype, layout, rng):
    """Two values a channel: what is left of a block's squares is zero, or less by rounding."""
    n, c, h, w = MANY_ROWS[layout]
    levels = torch.rand(2, c, 1, 1, generator=rng, dtype=torch.float64) + 0.5
    late = (torch.arange(n * h) >= n * h * 2 // 3).view(n, 1, h, 1)
    x = torch.where(late, *levels).expand(n, c, h, w).to(dtype)
    check_statistics(x.contiguous(memory_format=FORMATS[layout]))


def check_statistics(x: Tensor) -> None:
    """A rounding or two, as each block's mean is kept in two parts."""
    count, mean, m2 = OPS.bn_stats(x).double()
    exact = reference.bn_stats(x.double())
    eps = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32).eps
    assert torch.equal(count, exact[0])
    assert ((mean - exact[1]).abs() <= 2 * eps * exact[1]).all()
    assert ((m2 - exact[2]).abs() <= 8 * eps * exact[2]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_more_parts_than_a_block_merges(dtype, rng, monkeypatch):
    """276 parts of 32 pixels, and more channels than a block has columns."""
    monkeypatch.setenv("RNK_CUDA_CONV", "generic")
    d, shape = Draw(rng, (dtype, "nhwc"), True), ConvShape(1, 34, 91, 97, 34, 1, 1, groups=34)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
    x, dy, w = (d.activation(size) for size in (shape.x_size, shape.y_size, shape.w_size))
    x += torch.linspace(0, 100, shape.h).round().to(dtype)[:, None]
    y, stats = OPS.conv_fwd_stats(x, w, *NO_PROLOGUE, *geometry)
    for ours, exact in zip(stats, reference.bn_stats(y.double()), strict=True):
        assert torch.allclose(ours.double(), exact, rtol=1e-6)
    check_batch_norm_gradient((dy, w, None, x, *d.bn(shape.c), None, LEAKY, 0.5, *geometry))


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_many_groups_of_statistics(dtype, groups, rng, repro):
    """More channels than threads; each group has its own count, one of them none."""
    channels = 517
    count = torch.randint(1, 9, (groups, 1), generator=rng).double().repeat(1, channels)
    mean, m2, *affine = (
        torch.rand(2 * groups + 3, channels, generator=rng)
        .double()
        .split([groups, groups, 1, 1, 1])
    )
    count[groups // 2] = m2[groups // 2] = 0
    stats = torch.stack([count, mean, m2], 1).to(dtype)
    vectors = [v[0].to(dtype) for v in affine]
    for running in (*DTYPES, torch.float64):
        start = torch.rand(2, channels, generator=rng).to(running)
        results = []
        for op, convert in (
            (OPS.bn_finalize, Tensor.clone),
            (reference.bn_finalize, Tensor.clone),
            (reference.bn_finalize, Tensor.double),
        ):
            kept = [convert(v.clone()) for v in start]
            args = [convert(v) for v in (stats, *vectors)]
            results.append((*op(*args, *kept, torch.tensor(4), 0.25, 1e-5), *kept))
        for mine, theirs, want in zip(*results, strict=True):
            assert_close_to_oracle(mine, want, theirs, groups, name=str(running), repro=repro)
