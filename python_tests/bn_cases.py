"""What tests of the batch norm primitives share: ops, cases, inputs, comparison with reference."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from backends import on_gpu, placed, primitive
from oracle import KINK_ULPS, assert_close_to_oracle
from shapes import ACTIVATIONS, DTYPE_NAMES, size_id
from torch import Tensor

from resnet_kernels import reference
from resnet_kernels.ops.library import default_backend


class _DefaultOps:
    """The primitives of the backend that the running test is for (fixture each_backend)."""

    def __getattr__(self, name: str) -> Any:
        return primitive(name)


OPS = _DefaultOps()
IDENTITY, RELU, GELU, SILU, LEAKY = range(5)
SLOPE = 0.1
FORMATS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
CASES = list(itertools.product(DTYPE_NAMES, FORMATS))
# Beyond the hostile ones: several chunks of rows, blocks of columns, and chunks within a plane.
_LARGE = [(4, 16, 64, 65), (2, 512, 9, 9), (2, 1, 400, 301)]
# The same on the GPU kernels' smaller chunks, for backends that emulate or interpret them.
_LARGE_OF_GPU = [(2, 16, 46, 47), (2, 264, 4, 3), (2, 1, 100, 81)]


def emulated() -> bool:
    """Whether the running test's kernels are those of a GPU on the CPU: so sizes must be small."""
    return default_backend() != "native" and not on_gpu()


def large_sizes() -> list[tuple[int, ...]]:
    """Sizes that a kernel of the running test's backend splits in every way it can."""
    if on_gpu():
        return [*_LARGE, *_LARGE_OF_GPU]
    return _LARGE_OF_GPU if emulated() else _LARGE


def small_sizes() -> list[tuple[int, ...]]:
    """The others, those of one split more among them."""
    large = [size for size in large_sizes() if math.prod(size) < 100_000]
    return [*ACTIVATIONS, *([] if emulated() else large)]


def sizes() -> list[tuple[int, ...]]:
    return [*ACTIVATIONS, *large_sizes()]


def case_id(case: tuple[torch.dtype, str]) -> str:
    return f"{DTYPE_NAMES[case[0]]}-{case[1]}"


def vector_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def in_layout(x: Tensor, layout: str) -> Tensor:
    """A copy of x, dense, in a larger tensor: aligned where its pixels are even in number."""
    like = x.contiguous(memory_format=FORMATS[layout])
    start = 8 if x.shape[2] * x.shape[3] % 2 == 0 else 1
    out = torch.empty(x.numel() + start, dtype=x.dtype)[start:]
    return out.as_strided(like.shape, like.stride(), start).copy_(x)


class Draw:
    """Seeded tensors of one case; `exact` picks integers up to `largest`, small enough for every op
    to be exact."""

    def __init__(
        self,
        rng: torch.Generator,
        case: tuple[torch.dtype, str],
        exact: bool = False,
        largest: int = 3,
    ):
        self.rng, (self.dtype, self.layout) = rng, case
        self.exact, self.largest = exact, largest

    def _values(self, size: tuple[int, ...]) -> Tensor:
        if self.exact:
            return torch.randint(-self.largest, self.largest + 1, size, generator=self.rng).double()
        return torch.randn(size, generator=self.rng, dtype=torch.float64)

    def activation(self, size: tuple[int, ...]) -> Tensor:
        return in_layout(self._values(size).to(self.dtype), self.layout)

    def vector(self, channels: int) -> Tensor:
        return self._values((channels,)).to(vector_dtype(self.dtype))

    def rstd(self, channels: int) -> Tensor:
        return self.vector(channels).abs() + 0.5

    def bn(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """mean, rstd, scale, bias."""
        return (
            self.vector(channels),
            self.rstd(channels),
            self.vector(channels),
            self.vector(channels),
        )


def away_from_kinks(dz: Tensor, t: Tensor) -> Tensor:
    """dz, but zero where rounding decides on which side of act's kink pre-activation t falls."""
    near = t.abs() < KINK_ULPS * torch.finfo(torch.float32).eps
    return in_layout(dz.masked_fill(near, 0), "nchw" if dz.is_contiguous() else "nhwc")


def as_double(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if is_float else value


def tuple_of(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def check(
    op: str,
    size: tuple[int, ...],
    length: int,
    repro: str,
    *args: Any,
    strides: bool = True,
    amplification: float = 1.0,
) -> tuple:
    """Runs a primitive and its definition, in the same dtype and in fp64; compares by the rule.

    Results of floating point are also compared in strides, others bit for bit. strides: False where
    the inputs fit both layouts, and either is right. On a GPU the error to compare with is that of
    the definition there: of cuDNN's convolution and torch's CUDA kernels. amplification: oracle.py.
    """
    ours = tuple_of(getattr(OPS, op)(*args))
    theirs = tuple_of(getattr(reference, op)(*args))
    there = tuple_of(placed(getattr(reference, op))(*args)) if on_gpu() else theirs
    exact = tuple_of(getattr(reference, op)(*map(as_double, args)))
    for i, (mine, plain, near, oracle) in enumerate(zip(ours, theirs, there, exact, strict=True)):
        where = f"{op}[{i}] {size_id(size)}"
        triples = zip(mine.shape, mine.stride(), plain.stride(), strict=True)
        same = all(s == t for n, s, t in triples if n > 1) or mine.numel() <= mine.shape[1]
        assert same or not strides, where
        if not mine.is_floating_point():
            assert torch.equal(mine, plain), f"{where}\n{repro}"
            continue
        assert_close_to_oracle(
            mine, oracle, near, length, name=where, repro=repro, amplification=amplification
        )
    return ours


@contextlib.contextmanager
def _order(number: int) -> Iterator[None]:
    """So many threads, or that seed of the emulator, which orders its warps by it."""
    if default_backend() == "emulated":
        from resnet_kernels import emulator

        with emulator.active(seed=number):
            yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_deterministic(op: str, *args: Any) -> None:
    """The same bits in every run: with any number of threads, or order of the emulator's warps."""
    first = tuple_of(getattr(OPS, op)(*args))
    for number in (1, 2, 3):
        with _order(number):
            again = tuple_of(getattr(OPS, op)(*args))
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a, b), f"{op}: differs with threads or seed {number}"


def rows_of(size: tuple[int, ...]) -> int:
    return max(size[0] * size[2] * size[3], 1)
