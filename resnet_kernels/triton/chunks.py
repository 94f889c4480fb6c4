"""How a reduction over pixels is cut into programs: by shape alone, so that its order is fixed."""

from __future__ import annotations

from typing import NamedTuple

from .common import INTERPRETED
from .tensors import View, cdiv

# Elements of a tile: 16 a thread of 4 warps keep a few sums each in registers. The interpreter pays
# for operations, not for elements.
TILE = 1 << 16 if INTERPRETED.value else 2048
# Channels of a tile: 128 bytes of a 16-bit type, one cache line, or few.
WIDE, NARROW = 64, 16
# Programs that fill a large GPU several times over; more would only lengthen the merge.
PROGRAMS = 2048


class Chunks(NamedTuple):
    """`chunks` chunks of `steps` tiles of [rows, columns], for every block of columns."""

    chunks: int
    steps: int
    rows: int
    columns: int
    programs: int


def chunks_of(view: View) -> Chunks:
    """In contiguous memory a tile is one channel's, if that fills it: pixels lie side by side."""
    if view.nhwc:
        columns = WIDE if view.channels > NARROW else NARROW
    else:
        columns = 1 if view.rows > TILE // NARROW else NARROW
    rows = TILE // columns
    tiles = cdiv(view.rows, rows)
    blocks = cdiv(view.channels, columns)
    steps = min(max(tiles * blocks // PROGRAMS, 1), 64)
    chunks = cdiv(tiles, steps)
    return Chunks(chunks, steps, rows, columns, chunks * blocks)
