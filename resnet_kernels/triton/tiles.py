"""Which tile a convolution takes: by shape and dtype alone, so that results do not depend on a GPU.

| operands | depth | stages | why |
|---|---|---|---|
| 16 bits | 64 | 3 | 128 x 128 tiles: 96 KiB of shared memory, one block on any sm_80 |
| tf32 | 32 | 3 | the same bytes |
| fp32 | 16 | 2 | products are unrolled FMAs: deeper ones only make the code longer |
| fp64 | 16 | 2 | the same, half as many columns fit the registers |

`alternatives` are what RNK_TRITON_AUTOTUNE=1 tries (tuning.py). They keep the depth of the static
tile, so that the products of a result are summed in the same order in all of them.

| rows x columns, warps, stages | why |
|---|---|
| 128 x 128, 8, 3 | loads least for a product: many pixels and filters |
| 128 x 64, 4, 3 | 64 filters, or 128 on a grid that 128 x 128 leaves half empty in its last round |
| 64 x 128, 4, 3 | the same for few pixels and many filters: 7 x 7 images |
| 64 x 64, 4, 3 | several blocks on a multiprocessor hide the epilogue of each other |
| 64 x 64, 4, 4 | one stage more hides the latency of loads where the grid is too short for that |
| 128 x 32, 64 x 32 | few filters |
| fp32: 128 x 64, 8, 2; 64 x 32, 4, 2 | more or fewer products for a load; FMAs are the bound |
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .common import INTERPRETED
from .launch import Config
from .tensors import cdiv, power_of_2

# Tiles that give every SM of a large GPU one.
FULL_GRID = 132
# Steps of a split, fewer of which do not pay for storing and summing its results.
LEAST_STEPS = 8
# Operands of fewer channels waste most of a depth of one tap: taps and channels are counted in one.
FLAT_BELOW = 16


class Tile(NamedTuple):
    """Rows, columns and depth of a program's product; flat: depth of taps and channels in one."""

    rows: int
    columns: int
    depth: int
    flat: bool
    config: Config

    @property
    def name(self) -> str:
        sizes = f"{self.rows}x{self.columns}x{self.depth}"
        return f"{sizes}, {self.config.warps} warps, {self.config.stages} stages"

    def constants(self, tf32: bool) -> dict[str, int | bool]:
        sizes = {"BM": self.rows, "BN": self.columns, "BK": self.depth}
        return {**sizes, "FLAT": self.flat, "TF32": tf32}

    def split(self, pixels: int, programs: int) -> tuple[int, int]:
        """Splits of a depth of `pixels` and the steps of each, with `programs` tiles of results."""
        steps = cdiv(pixels, self.depth)
        splits = min(max(2 * FULL_GRID // programs, 1), cdiv(steps, LEAST_STEPS))
        steps = cdiv(steps, splits)
        return cdiv(pixels, steps * self.depth), steps


# Rows, columns, warps and stages of alternatives on tensor cores and on fp32 units; fp64 is for
# checking gradients.
_TENSOR_CORES = (
    *((128, 128, 8, 3), (128, 64, 4, 3), (64, 128, 4, 3), (64, 64, 4, 3), (64, 64, 4, 4)),
    *((128, 32, 4, 3), (64, 32, 4, 3)),
)
_FLOAT_UNITS = ((128, 64, 8, 2), (64, 64, 4, 2), (64, 32, 4, 2))


def alternatives(static: Tile, columns: int, dtype: torch.dtype, tf32: bool) -> list[Tile]:
    """The static tile, then those worth trying for a product of so many columns (of a group)."""
    if INTERPRETED.value or dtype == torch.float64:
        return [static]
    configs = _FLOAT_UNITS if dtype == torch.float32 and not tf32 else _TENSOR_CORES
    widest = power_of_2(columns, 32, 128)
    tiles = [static]
    for rows, width, warps, stages in configs:
        tile = static._replace(rows=rows, columns=width, config=Config(warps, stages))
        # Neither columns that are not there nor many narrow tiles.
        if min(widest, 64) <= width <= widest and tile != static:
            tiles.append(tile)
    return tiles


def tile_for(
    rows: int,
    columns: int,
    depth: int,
    dtype: torch.dtype,
    tf32: bool,
    *,
    sums: bool = False,
    gradient: bool = False,
) -> Tile:
    """The tile of a product of `rows` x `columns` (of a group) with `depth` channels a tap.

    sums: what is stored is summed as well; gradient: and is the gradient through a batch norm and
    its activation. Both take registers, so that a thread has half or a quarter of the results.
    """
    flat = depth < FLAT_BELOW
    if INTERPRETED.value:
        # Its cost is the number of operations, not their size.
        return Tile(256, 128 if columns > 32 else 32, 16 if flat else 128, flat, Config())
    if dtype == torch.float64:
        return Tile(32, 32, 16, flat, Config(4, 2))
    exact = dtype == torch.float32 and not tf32
    bn = 64 if columns > 32 else 32
    if exact:
        return Tile(64, bn, 16, flat, Config(8 if gradient else 4, 2))
    bk = 32 if tf32 or depth < 64 else 64
    if gradient:
        return Tile(64, bn, bk, flat, Config(8, 3))
    if columns > 64 and cdiv(rows, 128) * cdiv(columns, 128) >= FULL_GRID:
        return Tile(128, 64 if sums else 128, bk, flat, Config(8, 3))
    return Tile(64, bn, bk, flat, Config(4, 3))


def wgrad_tile(filters: int, channels: int, taps: int, dtype: torch.dtype, tf32: bool) -> Tile:
    """The tile of a filter gradient of a group; its depth is pixels."""
    flat = channels < 2 * FLAT_BELOW and taps > 1
    if INTERPRETED.value:
        return Tile(128, 128, 256, flat, Config())
    if dtype == torch.float64:
        return Tile(32, 32, 16, flat, Config(4, 2))
    if dtype == torch.float32 and not tf32:
        return Tile(
            64 if filters > 32 else 32, 64 if channels * taps > 32 else 32, 16, flat, Config(4, 2)
        )
    return Tile(64, 64, 32, flat, Config(4, 3))
