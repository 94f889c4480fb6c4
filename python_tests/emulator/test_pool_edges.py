"""Pooling kernels where threads have no channel, no row or several; windows without a tap."""

from __future__ import annotations

import itertools

import pytest
import torch
from bn_cases import FORMATS, LEAKY, OPS
from oracle import assert_close_to_oracle
from torch import Tensor

from resnet_kernels import emulator, reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# By layout, images and pixels of one: blocks have 51 rows of 5 vectors of 9, 15 rows of 17 channels
# of 33 or 256 pixels of planes, and are up to 64 in all, so that some threads have two rows, some
# one, and some no channel.
PIXELS = {"vectors": (1, 41, 43), "nhwc": (2, 17, 16), "nchw": (1, 45, 61)}
CASES = list(itertools.product(DTYPES, PIXELS))


@pytest.fixture(autouse=True)
def emulated():
    """Without races, which are other tests' matter."""
    with emulator.active(detect_races=False):
        yield


def size_of(dtype: torch.dtype, layout: str) -> tuple[int, ...]:
    n, h, w = PIXELS[layout]
    return n, {"vectors": 9 * 16 // dtype.itemsize, "nhwc": 33, "nchw": 7}[layout], h, w


def activation(size: tuple[int, ...], case: tuple, rng: torch.Generator) -> Tensor:
    """Small integers: a prologue of integers, a maximum and a sum of a window are exact."""
    layout = FORMATS["nchw" if case[1] == "nchw" else "nhwc"]
    return torch.randint(-4, 5, size, generator=rng).to(case[0]).contiguous(memory_format=layout)


def prologue(x: Tensor, rng: torch.Generator) -> tuple:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale, bias = (torch.randint(-3, 4, (x.shape[1],), generator=rng).to(dtype) for _ in range(2))
    return scale, bias, LEAKY, 0.5


def same(ours: Tensor, want: Tensor) -> bool:
    return torch.equal(ours, want.to(ours.dtype)) and ours.stride() == want.stride()


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{str(c[0])[6:]}-{c[1]}")
def test_turns(case, rng, repro):
    """What is written has the size of what is read."""
    window = ((3, 2), (1, 1), (1, 1))
    x = activation(size_of(*case), case, rng)
    for before in ((None, None, 0, 0.0), prologue(x, rng)):
        args = (x, *before, *window, (1, 1), False)
        for ours, want in zip(OPS.max_pool_fwd(*args), reference.max_pool_fwd(*args), strict=True):
            assert same(ours, want)
        args = (x, *before, *window, False, False)
        z, plain = OPS.avg_pool_fwd(*args), reference.avg_pool_fwd(*args)
        exact = reference.avg_pool_fwd(*(v.double() if isinstance(v, Tensor) else v for v in args))
        assert_close_to_oracle(z, exact, plain, 6, name="z", repro=repro)
    z, indices = reference.max_pool_fwd(x, None, None, 0, 0.0, *window, (1, 1), False)
    dz = activation(z.shape, case, rng)
    assert same(
        OPS.max_pool_bwd(dz, indices, x.shape, *window, (1, 1)),
        reference.max_pool_bwd(dz, indices, x.shape, *window, (1, 1)),
    )
    args = (x.shape, *window, False, False)
    dx, plain = OPS.avg_pool_bwd(dz, *args), reference.avg_pool_bwd(dz, *args)
    exact = reference.avg_pool_bwd(dz.double(), *args)
    assert_close_to_oracle(dx, exact, plain, 6, name="dx", repro=repro)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{str(c[0])[6:]}-{c[1]}")
def test_windows_without_a_tap(case, rng):
    """All of a window lies in the padding: minus infinity, and no gradient."""
    n, channels, *_ = size_of(*case)
    x = activation((n, channels, 2, 2), case, rng)
    for by_rows, by_columns in ((1, 1), (1, 0), (0, 1)):
        padding = (by_rows, by_columns)
        kernel, one, dilation = ([1 + by * p for p in padding] for by in (1, 0, 2))
        for before in ((None, None, 0, 0.0), prologue(x, rng)):
            z, indices = OPS.max_pool_fwd(x, *before, kernel, one, padding, dilation, False)
            assert (z == -torch.inf).all()
        dx = OPS.max_pool_bwd(torch.ones_like(z), indices, x.shape, kernel, one, padding, dilation)
        assert not dx.any()


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{str(c[0])[6:]}-{c[1]}")
def test_pixels_behind_the_last_window(case, rng, repro):
    """They lie in the one that would follow: no gradient."""
    n, channels, *_ = size_of(*case)
    x = activation((n + 1, channels, 8, 10), case, rng)
    window = ((3, 3), (2, 2), (0, 0))
    z, indices = reference.max_pool_fwd(x, None, None, 0, 0.0, *window, (1, 1), False)
    dz = activation(z.shape, case, rng)
    dx = OPS.max_pool_bwd(dz, indices, x.shape, *window, (1, 1))
    assert same(dx, reference.max_pool_bwd(dz, indices, x.shape, *window, (1, 1)))
    args = (x.shape, *window, False, True)
    dx, plain = OPS.avg_pool_bwd(dz, *args), reference.avg_pool_bwd(dz, *args)
    exact = reference.avg_pool_bwd(dz.double(), *args)
    assert_close_to_oracle(dx, exact, plain, 9, name="dx", repro=repro)
    assert not dx[:, :, -1].any() and not dx[..., -1].any()
