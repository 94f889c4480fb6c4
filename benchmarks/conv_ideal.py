"""What the implicit-GEMM forward kernel must move, from a convolution's shape and a tile alone.

A block of rows x columns outputs walks down the depth in chunks of 128 bytes. Per block and chunk:
the distinct 32-byte sectors of the input rows whose tap lies in the image, of the filter's rows and
of the prologue's vectors; at the end the outputs, and three floats a column of partial statistics.
fp16, channels_last.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np

from python_tests.shapes import ConvShape

ELEMENT, FLOAT, SECTOR, CHUNK = 2, 4, 32, 64  # CHUNK: elements of depth


class Tile(NamedTuple):
    rows: int
    columns: int


class Ideal(NamedTuple):
    """Sectors that the algorithm asks for, and the distinct bytes behind them."""

    load_sectors: int
    store_sectors: int
    bytes_read: int
    bytes_written: int


def tile_of(kernel: str) -> Tile:
    """The tile in a kernel's mangled name."""
    found = re.search(r"IgemmTileILi(\d+)ELi(\d+)E", kernel)
    assert found, kernel
    return Tile(int(found[1]), int(found[2]))


def _pixels(shape: ConvShape) -> np.ndarray:
    """[M, R * S]: the input pixel that each output meets at each tap, or -1 outside the image."""
    n, _, p, q = shape.y_size
    at = []
    for outputs, taps, stride, pad, dilation, size in (
        (p, shape.r, shape.stride[0], shape.padding[0], shape.dilation[0], shape.h),
        (q, shape.s, shape.stride[1], shape.padding[1], shape.dilation[1], shape.w),
    ):
        line = np.arange(outputs)[:, None] * stride - pad + np.arange(taps) * dilation
        at.append(np.where((line >= 0) & (line < size), line, -1))
    h, w = at[0][:, None, :, None], at[1][None, :, None, :]
    image = np.where((h < 0) | (w < 0), -1, h * shape.w + w).reshape(p * q, -1)
    first = np.arange(n)[:, None, None] * (shape.h * shape.w)
    return np.where(image < 0, -1, image + first).reshape(n * p * q, -1)


def ideal(shape: ConvShape, tile: Tile, prologue: bool, statistics: bool) -> Ideal:
    """Of a convolution of one group whose channels are whole sectors: C, K % 16 == 0."""
    assert shape.c % 16 == 0 and shape.k % 16 == 0 and shape.groups == 1
    pixels = _pixels(shape)
    rows, depth = pixels.shape[0], shape.r * shape.s * shape.c
    row_tiles, column_tiles = -(-rows // tile.rows), -(-shape.k // tile.columns)
    inside = pixels[pixels >= 0]
    loads = inside.size * column_tiles * shape.c * ELEMENT // SECTOR
    loads += row_tiles * shape.k * depth * ELEMENT // SECTOR
    read = np.unique(inside).size * shape.c * ELEMENT + shape.k * depth * ELEMENT
    if prologue:
        loads += row_tiles * column_tiles * depth * 2 * FLOAT // SECTOR
        read += 2 * shape.c * FLOAT
    written = rows * shape.k * ELEMENT
    if statistics:
        written += row_tiles * 3 * shape.k * FLOAT
    return Ideal(loads, written // SECTOR, read, written)


def ideal_window(shape: ConvShape, tile: Tile, statistics: bool) -> Ideal:
    """The same for few channels: a block asks once for each sector that its rows meet.

    Lines are counted one by one: what one of its output rows meets at one row of the filter.
    """
    assert shape.c % 16 != 0 and shape.groups == 1
    pixels = _pixels(shape).reshape(-1, shape.r, shape.s)
    rows, width = pixels.shape[0], shape.y_size[3]
    row_tiles, column_tiles = -(-rows // tile.rows), -(-shape.k // tile.columns)
    depth = shape.r * (-(-shape.s * shape.c // 8) * 8)  # the filter's rows in whole pieces
    pitch = -(-depth // 16) * 16
    filters = np.arange(shape.k)[:, None] * pitch + np.arange(depth)
    loads = 0
    for first in range(0, rows, tile.rows):
        last = min(first + tile.rows, rows)
        starts = [first, *range((first // width + 1) * width, last, width)]
        for start, end in itertools.pairwise([*starts, last]):
            for r in range(shape.r):
                loads += column_tiles * _sectors(_elements(pixels[start:end, r], shape.c))
    for column in range(0, shape.k, tile.columns):
        loads += row_tiles * _sectors(filters[column : column + tile.columns])
    read = np.unique(_elements(pixels, shape.c)).size * ELEMENT + shape.k * depth * ELEMENT
    written = rows * shape.k * ELEMENT + (row_tiles * 3 * shape.k * FLOAT if statistics else 0)
    return Ideal(loads, written // SECTOR, read, written)


def _elements(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Indices of the channels of those pixels that lie in the image."""
    return pixels[pixels >= 0][:, None] * channels + np.arange(channels)


def _sectors(elements: np.ndarray) -> int:
    return np.unique(elements * ELEMENT // SECTOR).size
