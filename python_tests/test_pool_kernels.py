"""max_pool_fwd/bwd and avg_pool_fwd/bwd kernels against their definition, exact or by the rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from bn_cases import OPS, assert_deterministic, emulated
from oracle import assert_close_to_oracle
from torch import Tensor

from resnet_kernels import reference

pytestmark = pytest.mark.usefixtures("each_backend")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
SHAPES = (
    (2, 64, 12, 12),
    (2, 3, 9, 7),
    (1, 17, 1, 1),
    (3, 35, 5, 8),
    (0, 4, 6, 6),
    (1, 300, 7, 7),
    (2, 5, 3, 3),
)
SMALL_SHAPES = ((1, 16, 7, 6), (2, 3, 9, 7), (1, 17, 1, 1), (0, 4, 6, 6), (2, 5, 3, 3))
# kernel, stride (0: the kernel), padding, dilation, ceil_mode
WINDOWS = (
    ((3, 3), (2, 2), (1, 1), (1, 1), False),
    ((2, 2), (0, 0), (0, 0), (1, 1), True),
    ((3, 2), (1, 3), (1, 1), (2, 1), False),
    ((5, 5), (2, 1), (2, 2), (1, 1), True),
    ((1, 1), (3, 3), (0, 0), (1, 1), False),
    ((3, 3), (7, 7), (0, 0), (1, 1), False),  # one window of a 3x3 image: z fits both layouts
)
PROLOGUES = {"plain": (False, 0), "relu": (True, 1), "leaky": (True, 4)}
CASES = list(itertools.product(DTYPES, FORMATS, WINDOWS))


def fits(shape: tuple[int, ...], window: tuple) -> bool:
    """Whether the padded input covers the window, as torch demands."""
    kernel, _, padding, dilation, _ = window
    spans = zip(shape[2:], kernel, padding, dilation, strict=True)
    return all(size + 2 * pad >= dil * (k - 1) + 1 for size, k, pad, dil in spans)


def case_id(case: tuple) -> str:
    dtype, layout, (kernel, stride, padding, dilation, ceil_mode) = case
    numbers = "".join(str(v) for pair in (kernel, stride, padding, dilation) for v in pair)
    return f"{str(dtype)[6:]}-{layout}-k{numbers}{'-ceil' if ceil_mode else ''}"


UNDILATED = [case for case in CASES if case[2][3] == (1, 1)]


def inputs(case: tuple, rng: torch.Generator) -> Iterator[Tensor]:
    """An activation of every shape that the window fits."""
    dtype, layout, window = case
    for shape in SMALL_SHAPES if emulated() else SHAPES:
        if fits(shape, window):
            yield activation(shape, dtype, layout, rng)


def activation(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str, rng: torch.Generator
) -> Tensor:
    """Half of the values repeat, so that windows have ties; a slice of a larger tensor."""
    x = torch.randn((shape[0] + 1, *shape[1:]), generator=rng)
    x = torch.where(torch.rand(x.shape, generator=rng) < 0.5, x.round(), x)
    return x.to(dtype).contiguous(memory_format=FORMATS[layout])[1:]


def prologue(name: str, x: Tensor, rng: torch.Generator) -> tuple:
    affine, act = PROLOGUES[name]
    if not affine:
        return None, None, act, 0.1
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    # Powers of two and halves: scale * x + bias is exact, so fused and unfused arithmetic agree.
    scale = torch.randint(-1, 2, (x.shape[1],), generator=rng).to(dtype) * 2
    return scale, torch.randint(-2, 3, (x.shape[1],), generator=rng).to(dtype) / 2, act, 0.125


def strides(x: Tensor) -> list[int]:
    """Strides of the dimensions that have more than one element: the others say nothing."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]


def same(actual: Tensor, expected: Tensor, repro: str) -> None:
    assert strides(actual) == strides(expected), repro
    assert actual.dtype == expected.dtype, repro
    assert torch.equal(actual.isnan(), expected.isnan()), repro
    assert torch.equal(actual.nan_to_num(), expected.nan_to_num()), repro


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_max_pool_fwd_is_the_definition_bit_for_bit(case, rng, repro) -> None:
    for x, name in itertools.product(inputs(case, rng), PROLOGUES):
        args = (x, *prologue(name, x, rng), *case[2])
        z, indices = OPS.max_pool_fwd(*args)
        if x.numel() == 0:
            assert z.numel() == 0 and z.shape[1] == x.shape[1]
            continue
        z_expected, indices_expected = reference.max_pool_fwd(*args)
        same(z, z_expected, repro)
        same(indices, indices_expected, repro)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_max_pool_bwd_by_the_rule(case, rng, repro) -> None:
    window = case[2]
    for x in filter(Tensor.numel, inputs(case, rng)):
        z, indices = reference.max_pool_fwd(x, None, None, 0, 0.0, *window)
        dz = torch.empty_like(z).copy_(torch.randn(z.shape, generator=rng))
        args = (indices, x.shape, *window[:4])
        expected = reference.max_pool_bwd(dz, *args)
        actual = OPS.max_pool_bwd(dz, *args)
        assert strides(actual) == strides(expected), repro
        oracle = reference.max_pool_bwd(dz.double(), *args)
        assert_close_to_oracle(actual, oracle, expected, 9, name="dx", repro=repro)


@pytest.mark.parametrize("case", UNDILATED, ids=case_id)
def test_avg_pool_by_the_rule(case, rng, repro) -> None:
    kernel, stride, padding, _, ceil_mode = case[2]
    taps = kernel[0] * kernel[1]
    images = list(filter(Tensor.numel, inputs(case, rng)))
    for x, name, counted in itertools.product(images, PROLOGUES, (True, False)):
        scale, bias, *act = prologue(name, x, rng)
        window = (kernel, stride, padding, ceil_mode, counted)
        z = OPS.avg_pool_fwd(x, scale, bias, *act, *window)
        expected = reference.avg_pool_fwd(x, scale, bias, *act, *window)
        wide = [None if v is None else v.double() for v in (scale, bias)]
        exact = reference.avg_pool_fwd(x.double(), *wide, *act, *window)
        assert strides(z) == strides(expected), repro
        assert_close_to_oracle(z, exact, expected, taps, name="z", repro=repro)
        dz = torch.empty_like(z).copy_(torch.randn(z.shape, generator=rng))
        args = (x.shape, *window)
        dx = OPS.avg_pool_bwd(dz, *args)
        expected = reference.avg_pool_bwd(dz, *args)
        assert strides(dx) == strides(expected), repro
        oracle = reference.avg_pool_bwd(dz.double(), *args)
        assert_close_to_oracle(dx, oracle, expected, taps, name="dx", repro=repro)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
def test_nan_and_infinity_are_as_in_torch(dtype, layout, rng, repro) -> None:
    x = activation((2, 20, 9, 9), dtype, layout, rng)
    pick = torch.rand(x.shape, generator=rng)
    x[pick < 0.1] = torch.nan
    x[pick > 0.95] = -torch.inf
    x[:, :3] = -torch.inf
    for window in WINDOWS:
        args = (x, None, None, 0, 0.0, *window)
        for actual, expected in zip(
            OPS.max_pool_fwd(*args), reference.max_pool_fwd(*args), strict=True
        ):
            same(actual, expected, repro)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
def test_every_activation_in_front(dtype, layout, rng, repro) -> None:
    window = ((3, 3), (2, 2), (1, 1))
    vectors = torch.float64 if dtype == torch.float64 else torch.float32
    for channels, act in itertools.product((5, 16), range(5)):
        x = activation((2, channels, 7, 6), dtype, layout, rng)
        scale, bias = (torch.randn(channels, generator=rng).to(vectors) for _ in range(2))
        for op, rest in {
            "max_pool_fwd": (*window, (1, 1), False),
            "avg_pool_fwd": (*window, False, True),
        }.items():
            args = (act, 0.1, *rest)
            ours = getattr(OPS, op)(x, scale, bias, *args)
            plain = getattr(reference, op)(x, scale, bias, *args)
            exact = getattr(reference, op)(x.double(), scale.double(), bias.double(), *args)
            if op == "max_pool_fwd":
                ours, plain, exact = ours[0], plain[0], exact[0]
            assert_close_to_oracle(ours, exact, plain, 9, name=f"{op} {act}", repro=repro)


@pytest.mark.parametrize("layout", FORMATS)
def test_deterministic(layout, rng) -> None:
    x = activation((2, 72, 31, 29), torch.float32, layout, rng)
    window = ((3, 3), (2, 2), (1, 1), (1, 1), False)
    z, indices = OPS.max_pool_fwd(x, None, None, 0, 0.0, *window)
    assert_deterministic("max_pool_fwd", x, None, None, 0, 0.0, *window)
    assert_deterministic("max_pool_bwd", z, indices, x.shape, *window[:4])
    assert_deterministic("avg_pool_bwd", z, x.shape, (3, 3), (2, 2), (1, 1), False, True)
    every = ([31, 29], [0, 0], [0, 0], False, True)
    assert_deterministic("avg_pool_fwd", x, None, None, 0, 0.0, *every)


def test_what_a_kernel_cannot_read_safely_is_refused(rng) -> None:
    x = activation((2, 8, 6, 6), torch.float32, "nhwc", rng)
    window = ((3, 3), (2, 2), (1, 1), (1, 1))
    z, indices = OPS.max_pool_fwd(x, None, None, 0, 0.0, *window, False)
    vector = torch.ones(8)
    bad = {
        "kernel": lambda: OPS.max_pool_fwd(x, None, None, 0, 0.0, (9, 9), *window[1:], False),
        "at most 255": lambda: OPS.max_pool_fwd(
            x, None, None, 0, 0.0, (16, 16), (1, 1), (8, 8), (1, 1), False
        ),
        "scale and bias": lambda: OPS.max_pool_fwd(x, vector, None, 0, 0.0, *window, False),
        "bias": lambda: OPS.avg_pool_fwd(
            x, vector, vector[:7], 0, 0.0, [3, 3], (2, 2), (1, 1), False, True
        ),
        "dense": lambda: OPS.max_pool_fwd(x[:, ::2], None, None, 0, 0.0, *window, False),
        "indices": lambda: OPS.max_pool_bwd(z, indices[:, :4], x.shape, *window),
        "input_size": lambda: OPS.max_pool_bwd(z, indices, [2, 7, 6, 6], *window),
        "dz": lambda: OPS.avg_pool_bwd(z, [2, 8, 60, 6], *window[:3], False, True),
    }
    for message, call in bad.items():
        with pytest.raises(RuntimeError, match=message):
            call()
