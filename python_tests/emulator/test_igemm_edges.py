"""Where tiles, chunks, filters and images end in the implicit-GEMM kernels: at every place."""

from __future__ import annotations

import itertools

import pytest
import torch
from bn_cases import LEAKY, OPS, RELU, Draw, as_double
from igemm_cases import (
    NONE,
    OPERANDS,
    PLAIN,
    TENSOR_CORES,
    VARIANTS,
    aligned,
    check_batch_norm_gradient,
    draw,
    equal,
    geometry,
    transposed,
)
from shapes import ConvShape
from torch import Tensor

from benchmarks import wgrad_splits
from resnet_kernels import emulator, reference


@pytest.fixture(autouse=True)
def emulated():
    """Reads and writes outside of tensors are errors; races are other tests' matter."""
    with emulator.active(detect_races=False):
        yield


def rows_and_columns(tile: str, addressing: str) -> list[ConvShape]:
    """Rows that end in each 16 of a tile, columns at each remainder of a vector, depth in each
    piece of a chunk.

    A row past the end would be read from an image past the end.
    """
    columns = [2, 9, 27, 30, 47, 52, 61, 64]
    if tile == "128x128":
        columns = [k + 64 * (i % 2) for i, k in enumerate(columns)]
    by_elements = addressing in ("gather", "window")
    taps, step = 1 if addressing == "pointwise" else 3, 2 if addressing == "gather" else 1
    around = {"padding": (0, taps // 2 * step), "dilation": (1, step)}
    found = []
    for i, k in enumerate(columns):
        c = 9 * i + 1 if by_elements else 8 * (i + 1)
        found.append(ConvShape(1, c, 1, 18 * i + 1, k, 1, taps, **around))
    # Rows and odd columns whose mask ends with a whole byte.
    found.append(found[-2]._replace(w=40))
    # Many chunks of a filter behind which there is no memory, ends in each quarter of a tile.
    m, n = map(int, tile.split("x"))
    for i in range(1, 5):
        c = 192 - by_elements
        found.append(ConvShape(1, c, 1, i * m // 4 - 2, i * n // 4 - 2, 1, taps, **around))
    # Groups where the kernels have them; pixels that are not neighbours in a gradient.
    if not by_elements:
        found.append(found[8]._replace(c=48, k=64, groups=2))
    if addressing == "pointwise":
        found.append(ConvShape(3, 40, 5, 11, 40, 1, 1, (2, 3)))
    return found


def shifted(v: Tensor, by: int) -> Tensor:
    """The same values `by` floats behind a multiple of 16 bytes."""
    return torch.cat([torch.zeros(by), v])[by:]


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_rows_and_columns(variant, rng, monkeypatch):
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d = draw(rng, name)
    for i, shape in enumerate(rows_and_columns(tile, addressing)):
        forward(d, name, shape, i % 2)
        backward(d, name, transposed(shape), i % 2)


def forward(d: Draw, name: str, shape: ConvShape, odd: int) -> None:
    """odd: vectors and residual that are not read in whole pieces."""
    x, w = aligned(d.activation(shape.x_size)), d.activation(shape.w_size)
    geo = geometry(shape, name)
    vectors = [shifted(d.vector(shape.k) / 4, odd) for _ in range(2)]
    residual = d.activation(shape.y_size)
    after = (*vectors, residual if odd else aligned(residual), RELU, 0.0)
    for before in (NONE, (d.vector(shape.c), d.vector(shape.c), LEAKY, 0.5)):
        y, (count, *_) = OPS.conv_fwd_stats(x, w, *before, *geo)
        assert equal(y, reference.conv_fwd(*map(as_double, (x, w, *before, *PLAIN, *geo)))), shape
        assert (count == y.shape[0] * y.shape[2] * y.shape[3]).all()
        args = (x, w, *before, *after, *geo)
        assert equal(OPS.conv_fwd(*args), reference.conv_fwd(*map(as_double, args))), shape


def backward(d: Draw, name: str, shape: ConvShape, odd: int) -> None:
    dy, w, geo = (
        aligned(d.activation(shape.y_size)),
        d.activation(shape.w_size),
        geometry(shape, name),
    )
    branch, y = d.activation(shape.x_size), d.activation(shape.x_size)
    args = (dy, w, aligned(branch), list(shape.x_size), *geo)
    assert equal(OPS.conv_dgrad(*args), reference.conv_dgrad(*map(as_double, args))), shape
    bn = [shifted(v, odd) for v in d.bn(shape.c)]
    bits = reference.bn_act_fwd_mask(y, *bn[2:], None, None, None, RELU, 0.0)[1]
    for mask in (None, bits):
        check_batch_norm_gradient((dy, w, branch, y, *bn, mask, LEAKY, 0.5, *geo))


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_statistics_of_small_numbers(variant, rng, monkeypatch):
    """M2 of less than one."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d, shape = draw(rng, name), rows_and_columns(tile, addressing)[2]
    x, w = aligned(d.activation(shape.x_size) / 256), d.activation(shape.w_size)
    for before in (NONE, (torch.ones(shape.c), torch.zeros(shape.c), LEAKY, 0.5)):
        y, (count, mean, m2) = OPS.conv_fwd_stats(x, w, *before, *geometry(shape, name))
        want = reference.bn_stats(y.double())
        assert (want[2] < 1).any()
        for ours, exact in zip((count, mean, m2), want, strict=True):
            assert torch.allclose(ours.double(), exact, rtol=1e-5, atol=1e-6)


def stays(ours: Tensor, exact: Tensor) -> bool:
    """Exact where it is finite, and not finite where that is not."""
    finite = exact.isfinite()
    return torch.equal(ours.isfinite(), finite) and equal(ours[finite], exact[finite])


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_infinities_stay_in_their_rows_and_columns(variant, rng, monkeypatch):
    """What lies behind a row's end is another row: not even a product with zero comes of it."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d, shapes = draw(rng, name), rows_and_columns(tile, addressing)
    for shape in (shapes[4], shapes[11]._replace(c=shapes[11].c + 8)):
        x, w, geo = (
            aligned(d.activation(shape.x_size)),
            d.activation(shape.w_size),
            geometry(shape, name),
        )
        before = (torch.ones(shape.c), torch.zeros(shape.c), LEAKY, 0.5)
        infinite_x, infinite_w = x.clone(), w.clone()
        infinite_x[..., ::7] = infinite_w[::2] = torch.inf
        for args, prologue in itertools.product(((infinite_x, w), (x, infinite_w)), (NONE, before)):
            args = (*args, *prologue, *PLAIN, *geo)
            assert stays(OPS.conv_fwd(*args), reference.conv_fwd(*map(as_double, args))), shape
        back = transposed(shape)
        dy, w = aligned(d.activation(back.y_size)), d.activation(back.w_size)
        infinite_dy, infinite_w = dy.clone(), w.clone()
        infinite_dy[..., ::7] = infinite_w[:, ::2] = torch.inf
        for args in ((infinite_dy, w), (dy, infinite_w)):
            args = (*args, None, list(back.x_size), *geo)
            assert stays(OPS.conv_dgrad(*args), reference.conv_dgrad(*map(as_double, args))), back


# nvcc unrolls the loops over taps by four.
TAPS = [(1, 2), (3, 4), (6, 5), (8, 7), (5, 8)]


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v[2] != "pointwise"], ids="-".join)
def test_filters_of_any_size(variant, rng, monkeypatch):
    """Forward with windows that lie outside the image, on both sides; backward with outputs that
    end before the input does."""
    name, tile, addressing = variant
    monkeypatch.setenv("RNK_CUDA_TILE", tile)
    d, channels = draw(rng, name), 3 if addressing in ("gather", "window") else 8
    step = (1, 2 if addressing == "gather" else 1)
    for i, taps in enumerate(TAPS):
        outside = ConvShape(6, channels, 4, 3, 8, *taps, padding=taps, stride=(1, 1 + i % 2))
        forward(d, name, outside._replace(dilation=step), 0)
        inside = ConvShape(6, 8, taps[0] + 3, taps[1] + 4, channels, *taps, stride=(1, 1 + i % 2))
        backward(d, name, inside, 0)


@pytest.mark.parametrize("offset", range(0, 70, 7))
@pytest.mark.parametrize("name", TENSOR_CORES)
def test_windows_at_any_alignment(name, offset, rng):
    """Lines of a window that begin and end anywhere in 128 bytes; images of one pixel's width."""
    d = draw(rng, name)
    for shape in (
        ConvShape(1, 3, 9, 70, 8, 3, 3, padding=(1, 1)),
        ConvShape(2, 3, 9, 21, 8, 7, 7, (2, 2), (3, 3)),
        ConvShape(3, 1, 5, 1, 8, 3, 1, padding=(1, 0)),
    ):
        n, c, h, w = shape.x_size
        x = d.activation(shape.x_size)
        memory = torch.zeros(offset + x.numel(), dtype=x.dtype)
        view = memory[offset:].view(n, h, w, c)
        x = view.copy_(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        filters = d.activation(shape.w_size)
        args = (x, filters, *NONE, *PLAIN, *geometry(shape, name))
        assert equal(OPS.conv_fwd(*args), reference.conv_fwd(*map(as_double, args))), shape


def filter_gradients(name: str) -> list[ConvShape]:
    """Rows that end in each part of a warp's, with columns that do; pixels in each part of a chunk.

    In tiles of both sizes, with both operands in whole pieces, with dy alone, with none. What a
    kernel does at a row's end it does at another place for every column, and so all pairs.
    """
    ends = [8, 16, 24, 32] if name in TENSOR_CORES else [32, 36, 64, 128]
    sizes = [*itertools.product(ends, ends), (64, 64)]
    if name in TENSOR_CORES:
        sizes += itertools.product(range(136, 200, 8), range(136, 168, 8))
    # Elements on their own: odd and even, on fp32 units every remainder of 4.
    odd = [5, 6, 13, 14, 21, 22, 29, 30] if name in TENSOR_CORES else [29, 30, 31, 61, 62, 63]
    sizes += [*itertools.product(ends, odd), *itertools.product((64, 128), (61, 62))]
    odd_rows = [end - 3 for end in ends] if name in TENSOR_CORES else [29, 30, 31, 93, 94, 95]
    sizes += [*itertools.product(odd_rows, odd), (61, 61)]
    return [ConvShape(1, c, 1, 11 * i % 64 + 5, k, 1, 1) for i, (k, c) in enumerate(sizes)]


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("name", OPERANDS)
def test_filter_gradient(name, prologue, rng):
    d = draw(rng, name)
    for shape in filter_gradients(name):
        filter_gradient(d, name, shape, torch.float32, prologue)


def filter_gradient(
    d: Draw, name: str, shape: ConvShape, dtype: torch.dtype, prologue: bool = False
) -> None:
    dy, x = aligned(d.activation(shape.y_size)), aligned(d.activation(shape.x_size))
    before = (d.vector(shape.c), d.vector(shape.c), LEAKY, 0.5) if prologue else NONE
    args = (dy, x, torch.zeros(shape.w_size, dtype=dtype), *before, *geometry(shape, name))
    assert equal(OPS.conv_wgrad(*args), reference.conv_wgrad(*map(as_double, args))), shape


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("size", [(136, 16), (40, 24), (8, 8), (40, 5), (7, 5)], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_filter_gradient_at_every_border(name, size, prologue, rng):
    """Every pixel of many chunks lies at a border, three in four at two; groups of such filters."""
    d, (k, c) = draw(rng, name), size
    for n, h, w, dilation in ((29, 2, 3, 1), (24, 3, 2, 1), (24, 3, 3, 2)):
        shape = ConvShape(n, c, h, w, k, 3, 3, (1, 1), (dilation, dilation), (dilation, dilation))
        filter_gradient(d, name, shape, torch.float32, prologue)
    groups = shape._replace(n=5, c=2 * c, k=2 * k, groups=2)
    filter_gradient(d, name, groups, torch.float32, prologue)


def chunks(name: str, count: int) -> int:
    """Pixels of so many chunks."""
    return count * (16 if OPERANDS[name][0] == torch.float32 else 32)


# Filters and chunks of pixels, by the parts that the emulator's 8 multiprocessors split them into.
PARTS = {1: (8, 3), 2: (200, 96), 4: (72, 64), 5: (136, 96), 7: (8, 41), 8: (8, 64)}


def test_the_cases_split_as_they_say():
    """In fp16; a tile's rows are others on fp32 units."""
    for parts, (k, count) in PARTS.items():
        shape = ConvShape(1, 8, 1, chunks("fp16", count), k, 1, 1)
        assert wgrad_splits.splits(shape, wgrad_splits.EMULATED) == parts


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("name", OPERANDS)
def test_parts_of_pixels(name, parts, rng):
    """They are added four at a time; the last one is shorter, or ends with its chunk."""
    d, (k, count) = draw(rng, name), PARTS[parts]
    for missing, dtype in ((0, OPERANDS[name][0]), (5, torch.float32)):
        shape = ConvShape(1, 8, 1, chunks(name, count) - missing, k, 1, 1)
        filter_gradient(d, name, shape, dtype)


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("size", [(128, 128), (8, 8), (8, 5), (6, 7)], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_parts_of_every_kernel(name, size, prologue, rng):
    d = draw(rng, name)
    shape = ConvShape(1, size[1], 1, chunks(name, 48) - 5, size[0], 1, 1)
    filter_gradient(d, name, shape, torch.float32, prologue)


@pytest.mark.parametrize("size", [(128, 128), (8, 8), (8, 5), (6, 7)], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_an_infinite_last_pixel(name, size, rng):
    """It counts once: nothing that a chunk holds behind it is a product with it, or with zero."""
    d = draw(rng, name)
    dy = torch.ones(1, size[0], 1, 37, dtype=d.dtype).contiguous(memory_format=torch.channels_last)
    x = aligned(d.activation((1, size[1], 1, 37)))
    x[..., -1] = torch.inf
    w = torch.zeros(*size, 1, 1)
    dw = OPS.conv_wgrad(dy, x, w, *NONE, (1, 1), (0, 0), (1, 1), 1, OPERANDS[name][1])
    assert torch.equal(dw, torch.full_like(w, torch.inf))


@pytest.mark.parametrize("name", TENSOR_CORES)
def test_filters_of_more_elements_than_threads(name, rng):
    """4096 blocks of 256 threads pack a filter and add up its parts, then take a second turn."""
    d, shape = draw(rng, name), ConvShape(1, 1024, 1, 1, 1032, 1, 1)
    dy, x = aligned(d.activation(shape.y_size)), aligned(d.activation(shape.x_size))
    # Of the other order than the kernels', so that what they write is put in its place.
    w = d.activation(shape._replace(c=shape.k, k=shape.c).w_size).transpose(0, 1)
    for param in (w, w.float()):
        args = (dy, x, param, *NONE, *geometry(shape, name))
        assert equal(OPS.conv_wgrad(*args), reference.conv_wgrad(*map(as_double, args)))
    args = (dy, w, None, list(shape.x_size), *geometry(shape, name))
    assert equal(OPS.conv_dgrad(*args), reference.conv_dgrad(*map(as_double, args)))
