"""The implicit-GEMM kernels, every instantiation of them, on the emulator and on a GPU."""

from __future__ import annotations

import itertools
import zlib
from contextlib import nullcontext

import pytest
import torch
from backends import available, using
from bn_cases import GELU, IDENTITY, LEAKY, OPS, RELU, SILU, as_double, check, tuple_of
from igemm_cases import (
    ACTS,
    ADDRESSING,
    NONE,
    OPERANDS,
    PLAIN,
    SHAPES,
    TENSOR_CORES,
    VARIANTS,
    aligned,
    check_batch_norm_gradient,
    conv,
    draw,
    equal,
    geometry,
    scaled_filter,
    transposed,
)
from oracle import assert_close_to_oracle
from shapes import RESNET
from torch import Tensor

from resnet_kernels import emulator, reference


@pytest.fixture(autouse=True, params=[name for name in available() if name.startswith("cuda")])
def igemm_backend(request, seed):
    """Emulated: warps in an order of the test's own, all detectors on."""
    emulated = request.param == "cuda-emulated"
    with using(request.param), emulator.active(seed) if emulated else nullcontext():
        yield


@pytest.fixture(params=[1, 2])
def seed(request):
    """Two orders and two sets of values."""
    return zlib.crc32(request.node.name.encode()) + request.param


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_forward_integers_are_exact(variant, rng, monkeypatch):
    """With a prologue and without, statistics, and every part of the epilogue."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d = draw(rng, name)
    for shape in ADDRESSING[addressing]:
        x, w = aligned(d.activation(shape.x_size)), d.activation(shape.w_size)
        geo = geometry(shape, name)
        vectors, residual = [d.vector(shape.k), d.vector(shape.k)], d.activation(shape.y_size)
        for before in (
            NONE,
            *((d.vector(shape.c), d.vector(shape.c), a, 0.5) for a in (RELU, LEAKY)),
        ):
            y, stats = OPS.conv_fwd_stats(x, w, *before, *geo)
            want = reference.conv_fwd(*map(as_double, (x, w, *before, *PLAIN, *geo)))
            assert equal(y, want), shape
            check_statistics(y, stats)
            for after in ((None, vectors[1], None, LEAKY, 0.5), (*vectors, residual, RELU, 0.0)):
                args = (x, w, *before, *after, *geo)
                if representable(want, name):
                    assert equal(OPS.conv_fwd(*args), reference.conv_fwd(*map(as_double, args))), (
                        shape
                    )


def representable(y: Tensor, name: str) -> bool:
    """Whether y times a small integer plus two more stays exact in the outputs' dtype."""
    return bool(y.abs().max() * 4 < 1 / torch.finfo(OPERANDS[name][0]).eps)


def check_statistics(y: Tensor, stats: Tensor) -> None:
    """Those of y as stored: counts exact, moments to fp32."""
    count, mean, m2 = stats.double()
    exact = reference.bn_stats(y.double())
    assert torch.equal(count, exact[0])
    assert torch.allclose(mean, exact[1], rtol=1e-5, atol=1e-5)
    assert torch.allclose(m2, exact[2], rtol=1e-5, atol=1e-4 * float(exact[2].max()))


@pytest.mark.parametrize("seed", [1], indirect=True)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_forward_activations(variant, rng, repro, monkeypatch):
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d = draw(rng, name, exact=False)
    for shape in ADDRESSING[addressing][:2]:
        forward_activations(d, name, shape, repro)


def forward_activations(d, name, shape, repro):
    x, w = aligned(d.activation(shape.x_size)), scaled_filter(d, shape)
    geo, residual = geometry(shape, name), d.activation(shape.y_size)
    for act in ACTS:
        before = (d.vector(shape.c), d.vector(shape.c), act, 0.1)
        after = (d.vector(shape.k), d.vector(shape.k), residual, act, 0.1)
        for args in ((x, w, *before, *after, *geo), (x, w, *NONE, *after, *geo)):
            check("conv_fwd", shape.y_size, shape.reduction_length, repro, *args)


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_input_gradient_integers_are_exact(variant, rng, monkeypatch):
    """Alone, with a branch, and on through a batch norm by its values and by the mask."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d = draw(rng, name)
    for shape in (transposed(s) for s in ADDRESSING[addressing]):
        dy, w = aligned(d.activation(shape.y_size)), d.activation(shape.w_size)
        geo = geometry(shape, name)
        for branch in (None, d.activation(shape.x_size)):
            args = (dy, w, branch, list(shape.x_size), *geo)
            assert equal(OPS.conv_dgrad(*args), reference.conv_dgrad(*map(as_double, args))), shape
        y, bn = d.activation(shape.x_size), d.bn(shape.c)
        bits = reference.bn_act_fwd_mask(y, *bn[2:], None, None, None, RELU, 0.0)[1]
        branch = d.activation(shape.x_size)
        for mask, act in itertools.product((None, bits), (RELU, LEAKY)):
            args = (dy, w, branch, y, *bn, mask, act, 0.5, *geo)
            check_batch_norm_gradient(args)


@pytest.mark.parametrize("seed", [1], indirect=True)
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_gradient_activations(variant, rng, repro, monkeypatch):
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d, shape = draw(rng, name, exact=False), transposed(ADDRESSING[addressing][0])
    dy, w = aligned(d.activation(shape.y_size)), scaled_filter(d, shape)
    y, bn = d.activation(shape.x_size), d.bn(shape.c)
    length = shape.k * shape.r * shape.s
    for act in (GELU, SILU, IDENTITY):
        args = (dy, w, None, y, *bn, None, act, 0.1, *geometry(shape, name))
        g, _ = tuple_of(OPS.conv_dgrad_bn(*args))
        theirs, exact = (reference.conv_dgrad_bn(*a)[0] for a in (args, map(as_double, args)))
        assert_close_to_oracle(g, exact, theirs, length, name="g", repro=repro)


@pytest.mark.parametrize(
    "shape",
    [*SHAPES, conv(2, 136, 9, 9, 144, 1), conv(1, 136, 5, 5, 144, 1), conv(1, 8, 52, 52, 16, 1)],
    ids=lambda s: s.id,
)
@pytest.mark.parametrize("name", OPERANDS)
def test_filter_gradient_integers_are_exact(name, shape, rng):
    """Every prologue, dy in whole vectors and not, parameters of both dtypes and layouts."""
    d = draw(rng, name)
    dy, x = aligned(d.activation(shape.y_size)), aligned(d.activation(shape.x_size))
    for act in (None, RELU, LEAKY):
        before = NONE if act is None else (d.vector(shape.c), d.vector(shape.c), act, 0.5)
        for w in (d.activation(shape.w_size), torch.zeros(shape.w_size)):
            args = (dy, x, w, *before, *geometry(shape, name))
            dw = OPS.conv_wgrad(*args)
            assert equal(dw, reference.conv_wgrad(*map(as_double, args)))
            assert dw.stride() == w.stride() or 1 in w.shape


@pytest.mark.parametrize("seed", [1], indirect=True)
@pytest.mark.parametrize(
    "shape", [SHAPES[0], SHAPES[2], SHAPES[-3], SHAPES[-2]], ids=lambda s: s.id
)
@pytest.mark.parametrize("name", OPERANDS)
def test_filter_gradient_activations(name, shape, rng, repro):
    d = draw(rng, name, exact=False)
    dy, x = aligned(d.activation(shape.y_size)), aligned(d.activation(shape.x_size))
    w, rows = d.activation(shape.w_size), shape.y_size[0] * shape.y_size[2] * shape.y_size[3]
    for act in (GELU, SILU, IDENTITY):
        before = (d.vector(shape.c), d.vector(shape.c), act, 0.1)
        args = (dy, x, w, *before, *geometry(shape, name))
        check("conv_wgrad", shape.w_size, rows, repro, *args, strides=False)


@pytest.mark.parametrize("seed", [3], indirect=True)
@pytest.mark.parametrize("shape", RESNET, ids=lambda s: s.id)
@pytest.mark.parametrize("name", TENSOR_CORES)
def test_resnet_layers(name, shape, rng, repro):
    """Every convolution of ResNet-18 and ResNet-50 on a small image, all three directions."""
    small = shape.at(1, max(min(shape.h, 12), 7))
    d = draw(rng, name, exact=False)
    x, w = aligned(d.activation(small.x_size)), aligned(scaled_filter(d, small))
    dy = aligned(d.activation(small.y_size))
    geo, length = geometry(small, name), small.reduction_length
    before = (d.vector(small.c), d.vector(small.c), RELU, 0.0)
    check("conv_fwd", small.y_size, length, repro, x, w, *before, *PLAIN, *geo)
    outputs = small.k * small.r * small.s
    check("conv_dgrad", small.x_size, outputs, repro, dy, w, None, list(small.x_size), *geo)
    pixels = small.y_size[2] * small.y_size[3]
    check("conv_wgrad", small.w_size, pixels, repro, dy, x, w, *before, *geo, strides=False)
