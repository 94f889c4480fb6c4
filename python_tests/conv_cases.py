"""What tests of the convolution primitives share: cases in channels_last, inputs, oracles.

The definition in fp64 is the oracle, plain torch in the same dtype what the error is measured
against. The CPU kernels are fp32 and bf16; the CUDA ones run emulated, at small sizes, in every
dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pytest
import tolerances
import torch
from backends import available
from bn_cases import OPS, Draw, assert_deterministic, away_from_kinks, tuple_of
from shapes import DTYPE_NAMES, HOSTILE, RESNET, ConvShape
from torch import Tensor

from resnet_kernels.ops.layout import conv_memory_format
from resnet_kernels.ops.library import fallback_counts
from resnet_kernels.reference.bn import pre_act


def _conv(c: int, h: int, w: int, k: int, r: int, **geometry) -> ConvShape:
    geometry = {"padding": (r // 2, r // 2)} | geometry
    return ConvShape(2, c, h, w, k, r, r, **geometry)


# What the Winograd kernels meet: partial tiles, vectors, chunks and panels, every padding, several
# blocks, images of one row or column.
WINOGRAD = [
    _conv(32, 8, 8, 32, 3),
    _conv(37, 7, 5, 33, 3),
    _conv(65, 9, 6, 130, 3, padding=(0, 2)),
    _conv(64, 1, 9, 48, 3),
    _conv(40, 11, 3, 36, 3, padding=(2, 0)),
    _conv(130, 14, 15, 70, 3),
    ConvShape(9, 32, 17, 16, 32, 3, 3, (1, 1), (1, 1)),
    ConvShape(16, 32, 30, 30, 40, 3, 3, (1, 1), (1, 1)),
]
# What those meet that read padded bands of few channels: several bands of an image and one of
# several images, tiles of rows and columns that end early, strides that differ, taps outside.
BANDS = [
    _conv(16, 8, 8, 16, 3),
    _conv(16, 33, 40, 40, 3),
    _conv(8, 30, 35, 17, 3, padding=(2, 0)),
    _conv(32, 9, 23, 24, 3, stride=(2, 2)),
    _conv(3, 25, 50, 20, 5, stride=(2, 1), padding=(2, 2)),
    _conv(16, 12, 14, 9, 3, stride=(1, 2), dilation=(2, 1), padding=(1, 3)),
    _conv(8, 7, 20, 48, 3, stride=(2, 2)),
    _conv(32, 6, 5, 16, 1, stride=(2, 2), padding=(1, 1)),
    ConvShape(40, 16, 5, 4, 64, 3, 3, (1, 1), (1, 1)),
    ConvShape(1, 16, 3, 1500, 16, 3, 3, (1, 1), (1, 1)),  # lines too long to be copied
]
# What the direct ones meet beyond the hostile shapes: strides, dilation, groups of all sizes,
# rectangles, many rows and few.
DIRECT = [
    _conv(24, 13, 13, 20, 3, stride=(2, 2)),
    _conv(16, 12, 10, 33, 3, stride=(2, 1), dilation=(1, 2), padding=(1, 2)),
    _conv(64, 9, 9, 64, 1, stride=(2, 2), padding=(0, 0)),
    _conv(70, 6, 7, 130, 1),
    _conv(3, 31, 29, 64, 7, stride=(2, 2), padding=(3, 3)),
    _conv(32, 9, 9, 32, 3, groups=32),
    _conv(32, 9, 9, 64, 3, groups=32, stride=(2, 2)),
    _conv(64, 7, 7, 64, 3, groups=16),
    _conv(96, 8, 8, 64, 3, groups=2),
    _conv(12, 10, 10, 8, 5, stride=(3, 3), padding=(2, 2)),
    _conv(8, 5, 5, 8, 3, padding=(5, 3)),
    ConvShape(13, 40, 20, 21, 24, 1, 1),
]
# What AMX tiles of bf16 meet, which multiply fp32 of 32 channels or more in parts: phases of a
# transposed convolution with more pixels than the source, depths that end within a chunk or are cut
# in several blocks, a panel of less than 16 columns, several blocks of rows.
SPLIT = [
    _conv(32, 5, 5, 32, 2, stride=(2, 2), padding=(0, 0)),
    _conv(48, 10, 10, 64, 3, stride=(2, 2), padding=(0, 0)),
    _conv(33, 9, 6, 41, 3, stride=(2, 1), dilation=(1, 2), padding=(1, 2)),
    _conv(64, 19, 20, 80, 1),
    _conv(600, 3, 5, 40, 3, stride=(2, 1)),
    _conv(40, 3, 5, 600, 3, stride=(1, 2)),
    _conv(100, 12, 12, 34, 5),
]
SHAPES = [*WINOGRAD, *BANDS, *DIRECT, *SPLIT, *HOSTILE, *(s.at(1, min(s.h, 7)) for s in RESNET)]


# What the generic CUDA kernels meet beyond the hostile shapes: several tiles of pixels and of
# channels, depths above one stage of the filter, groups within a warp, the stem.
EMULATED = [
    _conv(33, 6, 7, 40, 3),
    _conv(16, 5, 6, 33, 3, stride=(2, 1), dilation=(1, 2), padding=(1, 2)),
    _conv(36, 4, 5, 36, 3, groups=36, stride=(2, 2)),
    _conv(24, 4, 4, 40, 3, groups=4),
    ConvShape(1, 3, 15, 13, 8, 7, 7, (2, 2), (3, 3)),
    ConvShape(2, 70, 3, 3, 66, 1, 1),
    ConvShape(2, 5, 12, 13, 6, 2, 2),  # two parts of pixels for the gradient of the filter
]
EMULATED_SHAPES = [*EMULATED, *(s for s in HOSTILE if s.h < 100)]


# What NaN and infinity meet: partial tiles of rows, columns and depth, taps outside.
SPECIAL = [BANDS[0], BANDS[5], DIRECT[2], DIRECT[3], DIRECT[11], SPLIT[1], SPLIT[3]]


# Of our CPU kernels.
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def put_specials(t: Tensor) -> Tensor:
    """t with a NaN and both infinities, in three pixels of different images or lines."""
    t[0, 1, 2, 3], t[-1, -1, -1, -1], t[-1, 2, 0, 0] = float("nan"), float("inf"), -float("inf")
    return t


def same_with_specials(ours: Tensor, want: Tensor) -> None:
    """Equal, infinities too, and NaN where NaN is wanted."""
    assert want.isnan().any()
    assert torch.equal(ours.isnan(), want.isnan())
    assert torch.equal(ours.nan_to_num(7.0, 1e30, -1e30), want.nan_to_num(7.0, 1e30, -1e30))


class Case(NamedTuple):
    """What a test runs on: a backend, the dtype of the activations, a shape; and RNK_CPU_CONV."""

    backend: str
    dtype: torch.dtype
    shape: ConvShape
    choice: str = "own"

    @property
    def amplification(self) -> float:
        return tolerances.WINOGRAD4_AMPLIFICATION if self.choice == WINOGRAD4 else 1.0


WINOGRAD4 = "winograd4x4"
# The rows of G of F(4x4, 3x3) are multiples of 1/15 of a power of two.
_WINOGRAD4_UNIT = 15**2


def over(
    cpu: Sequence[ConvShape],
    emulated: Sequence[ConvShape],
    winograd4: Sequence[ConvShape] = (),
) -> Any:
    """Parametrizes the fixture `case`: on the CPU fp32, and bf16 of one group, on a GPU each dtype.

    CUDA kernels on a real one have the shapes of both lists, Triton's, which cost a compilation
    each, the second. winograd4: shapes that run on the CPU by F(4x4, 3x3) as well.
    """
    cases = [Case("cpu", torch.float32, shape) for shape in cpu]
    cases += [Case("cpu", torch.float32, shape, WINOGRAD4) for shape in winograd4]
    cases += [Case("cpu", torch.bfloat16, shape) for shape in cpu if shape.groups == 1]
    gpus = dict.fromkeys(("cuda-emulated", "triton-emulated", "triton-interpreted"), emulated)
    gpus |= {"cuda": tuple(dict.fromkeys([*cpu, *emulated])), "triton": emulated}
    cases += [Case(gpu, dtype, s) for gpu in gpus for s in gpus[gpu] for dtype in DTYPE_NAMES]
    params = [
        pytest.param(
            case,
            id=f"{case.shape.id}-{DTYPE_NAMES[case.dtype]}-{case.backend}"
            + ("" if case.choice == "own" else f"-{case.choice}"),
            marks=[pytest.mark.full] if case.backend.startswith("triton") else [],
        )
        for case in cases
        if case.backend in available()
    ]
    return pytest.mark.parametrize("case", params, indirect=True)


def draw(rng: torch.Generator, dtype: torch.dtype = torch.float32, exact: bool = False) -> Draw:
    return Draw(rng, (dtype, "nhwc"), exact)


def exact_draw(rng: torch.Generator, case: Case) -> Draw:
    """Of integers so small that nothing is rounded, neither in F(4x4, 3x3).

    There what the output transform adds are multiples of 1/16, and with these below 2^20.
    """
    largest = 1 if case.choice == WINOGRAD4 else 3
    return Draw(rng, (case.dtype, "nhwc"), True, largest)


def same_bits(case: Case, op: str, *args: Any) -> None:
    """With any number of threads; on the GPU in any order of warps, and without a race."""
    assert_deterministic(op, *args)
    if case.backend != "cuda-emulated":
        return
    from resnet_kernels import emulator  # not everywhere to be had

    results = []
    for seed in (1, 2):
        with emulator.active(seed):
            results.append(tuple_of(getattr(OPS, op)(*args)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b), f"{op}: differs with the order of warps"


def filter_of(d: Draw, shape: ConvShape, layout: str = "nhwc") -> Tensor:
    """[K, C / groups, R, S] in a layout of activations, scaled so that outputs are of order 1."""
    w = d.activation(shape.w_size)
    if not d.exact:
        w = w * shape.reduction_length**-0.5
    elif d.largest == 1:
        w = w * _WINOGRAD4_UNIT
    if layout == "nchw":
        return w.contiguous()
    return w.contiguous(memory_format=torch.channels_last)


def geometry(shape: ConvShape) -> tuple:
    """The primitives' last arguments."""
    return shape.stride, shape.padding, shape.dilation, shape.groups, False


def prologue(d: Draw, channels: int, act: int, slope: float = 0.1) -> tuple:
    return d.vector(channels), d.vector(channels), act, slope


NO_PROLOGUE = (None, None, 0, 0.0)


def gradient_at(d: Draw, size: tuple[int, ...], y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """A gradient that is zero where rounding would choose the side of a kink."""
    return away_from_kinks(d.activation(size), pre_act(y.double(), scale.double(), bias.double()))


@pytest.fixture(autouse=True)
def own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our kernels also where torch's are faster; tests import it."""
    monkeypatch.setenv("RNK_CPU_CONV", "own")


def own_if_served(case: Case, activation: Tensor, w: Tensor) -> AbstractContextManager:
    """OwnKernels where the op is ours: the CPU's read channels_last."""
    layout = conv_memory_format(activation, w)
    return OwnKernels() if layout == torch.channels_last else nullcontext()


class OwnKernels:
    """Fails if torch's convolution ran inside the `with`."""

    def __enter__(self) -> None:
        fallback_counts(reset=True)

    def __exit__(self, *_: object) -> None:
        assert fallback_counts() == {}, fallback_counts()
