"""What the implicit-GEMM forward kernel must move, from a convolution's shape and a tile alone.

A block of rows x columns outputs walks down the depth in chunks of 128 bytes. Per block and chunk:
the distinct 32-byte sectors of the input rows whose tap lies in the image, of the filter's rows and
of the prologue's vectors; at the end the outputs, and three floats a column of partial statistics.
fp16, channels_last.
"""

from __future__ import annotations

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


def ideal_gather(shape: ConvShape, tile: Tile, statistics: bool) -> Ideal:
    """The same for few channels, where a chunk spans taps: sectors are counted one by one."""
    pixels = _pixels(shape)
    rows, depth = pixels.shape[0], shape.r * shape.s * shape.c
    row_tiles, column_tiles = -(-rows // tile.rows), -(-shape.k // tile.columns)
    channel = np.arange(shape.c)
    elements = pixels[:, :, None] * shape.c + channel
    elements = np.where(pixels[:, :, None] < 0, -1, elements).reshape(rows, depth)
    pitch = -(-depth // 8) * 8  # the filter's rows are packed to whole pieces of 16 bytes
    filters = np.arange(shape.k)[:, None] * pitch + np.arange(pitch)
    loads = 0
    for first in range(0, depth, CHUNK):
        for row in range(0, rows, tile.rows):
            loads += column_tiles * _sectors(elements[row : row + tile.rows, first : first + CHUNK])
        for column in range(0, shape.k, tile.columns):
            part = filters[column : column + tile.columns, first : first + CHUNK]
            loads += row_tiles * _sectors(part)
    read = np.unique(elements[elements >= 0]).size * ELEMENT + shape.k * pitch * ELEMENT
    written = rows * shape.k * ELEMENT + (row_tiles * 3 * shape.k * FLOAT if statistics else 0)
    return Ideal(loads, written // SECTOR, read, written)


def _sectors(elements: np.ndarray) -> int:
    return np.unique(elements[elements >= 0] * ELEMENT // SECTOR).size
