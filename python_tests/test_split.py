"""Convolutions of fp32 as exact as in fp32, whichever units multiply: AMX does it in bf16 parts."""

from __future__ import annotations

import pytest
import torch
from bn_cases import IDENTITY, OPS, as_double
from conv_cases import (
    NO_PROLOGUE,
    SPLIT,
    OwnKernels,
    draw,
    filter_of,
    geometry,
    own_kernels,  # noqa: F401 - applies to all tests here
)
from shapes import ConvShape
from torch import Tensor

from resnet_kernels import reference

NO_EPILOGUE = (None, None, None, IDENTITY, 0.0)
# Neither Winograd nor few channels, 1,568 to 6,272 rows.
SHAPES = [
    ConvShape(8, 256, 14, 14, 320, 1, 1),
    ConvShape(2, 64, 56, 56, 64, 3, 3, (2, 2), (1, 1)),
]
POINTWISE = ConvShape(3, 64, 9, 11, 48, 1, 1)


def arguments(op: str, shape: ConvShape, rng: torch.Generator) -> tuple:
    d = draw(rng)
    x, dy, w = d.activation(shape.x_size), d.activation(shape.y_size), filter_of(d, shape)
    return {
        "conv_fwd": (x, w, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(shape)),
        "conv_dgrad": (dy, w, None, list(shape.x_size), *geometry(shape)),
        "conv_wgrad": (dy, x, w, *NO_PROLOGUE, *geometry(shape)),
    }[op]


def forward(x: Tensor, w: Tensor, shape: ConvShape) -> Tensor:
    with OwnKernels():
        return OPS.conv_fwd(x, w, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(shape))


def pointwise(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    d = draw(rng)
    return d.activation(POINTWISE.x_size), filter_of(d, POINTWISE)


def rms(t: Tensor) -> float:
    return float(t.square().mean().sqrt())


@pytest.mark.parametrize("op", ["conv_fwd", "conv_dgrad", "conv_wgrad"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
def test_as_exact_as_fp32(op, shape, rng):
    """Of torch's error, whose sums are shorter: gradients of filters have 1.7 to 1.9 times that.

    With two parts instead of three it would be 50 times.
    """
    args = arguments(op, shape, rng)
    exact = getattr(reference, op)(*map(as_double, args))
    plain = getattr(reference, op)(*args)
    with OwnKernels():
        ours = getattr(OPS, op)(*args)
    assert rms(ours.double() - exact) <= 2.2 * rms(plain.double() - exact)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-30, 2.0**60, 2.0**126])
def test_powers_of_two_pass_through(scale, rng):
    """Of the images; where the largest outputs are as large, of the filter in return."""
    x, w = pointwise(rng)
    w = w / w.abs().max() / 64
    scaled = forward(x / 8 * scale, w, POINTWISE)
    assert scaled.isfinite().all()
    exact = reference.conv_fwd(
        *map(as_double, (x / 8, w, *NO_PROLOGUE, *NO_EPILOGUE, *geometry(POINTWISE)))
    )
    error = (scaled.double() / scale - exact).abs().max()
    assert error <= 2.0**-22 * x.abs().max()


def test_small_values_lose_digits_below_what_is_said():
    """2^-126 of the other operand at most, for values below 2^-102."""
    for exponent in (-104, -110, -116, -124):
        x = torch.rand(1, 32, 8, 8).to(memory_format=torch.channels_last) * 2.0**exponent
        w = torch.rand(32, 32, 1, 1) * 2.0**100
        shape = ConvShape(1, 32, 8, 8, 32, 1, 1)
        exact = torch.nn.functional.conv2d(x.double(), w.double())
        error = (forward(x, w, shape).double() - exact).abs().max()
        assert error <= 32 * 2.0**-126 * 2.0**100 + 2.0**-22 * exact.max()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exponent", [(64, 64), (72, 72), (20, 124), (124, 20), (127, 127)])
def test_products_that_overflow_are_infinite(exponent, sign):
    """Not NaN, which high parts that overflow and lower ones of the other sign would add up to."""
    generator = torch.Generator().manual_seed(exponent[0])
    x, w = torch.zeros(POINTWISE.x_size), torch.zeros(POINTWISE.w_size)
    x[:, 7] = (torch.rand(3, 9, 11, generator=generator) / 2 + 0.5) * 2.0 ** exponent[0] * 1.9
    w[:, 7] = (
        (torch.rand(48, 1, 1, generator=generator) / 2 + 0.5) * 2.0 ** exponent[1] * sign * 1.9
    )
    y = forward(x.to(memory_format=torch.channels_last), w, POINTWISE)
    assert torch.equal(y, torch.nn.functional.conv2d(x, w))
    assert torch.isinf(y).any()


def test_the_largest_values(rng):
    """Beside others, and with a filter that keeps all sums finite."""
    x, w = pointwise(rng)
    largest = torch.finfo(torch.float32).max
    x[1, 3, 4, 5], x[2, :, 0, 0], w = largest, -largest, w / 256
    exact = torch.nn.functional.conv2d(x.double(), w.double())
    magnitude = torch.nn.functional.conv2d(x.double().abs(), w.double().abs())
    error = (forward(x, w, POINTWISE).double() - exact).abs()
    assert (error <= 2.0**-20 * magnitude).all()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 1e30])
def test_one_image_does_not_change_another(value, rng):
    """Nor its own other pixels, and not what was in the kernels' memory before."""
    x, w = pointwise(rng)
    before = forward(x, w, POINTWISE)
    forward(torch.full_like(x, value), w, POINTWISE)
    changed = x.clone(memory_format=torch.preserve_format)
    changed[1, 5, 2, 3] = value
    after = forward(changed, w, POINTWISE)
    assert torch.equal(after[1, :, 2, 3].isfinite(), (w[:, 5, 0, 0] * value).isfinite())
    after[1, :, 2, 3] = before[1, :, 2, 3]
    assert torch.equal(after, before)
    assert torch.equal(forward(changed[:1], w, POINTWISE), before[:1])


@pytest.mark.parametrize("op", ["conv_fwd", "conv_dgrad", "conv_wgrad"])
@pytest.mark.parametrize("shape", SPLIT, ids=lambda s: s.id)
def test_any_number_of_threads(op, shape, rng):
    args = arguments(op, shape, rng)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(getattr(OPS, op)(*args))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
