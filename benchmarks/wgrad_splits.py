"""How many partial sums conv_wgrad writes, from a convolution's shape: csrc/cuda/igemm_wgrad.cu.

The one large part of a step's bytes that depends on the device and is not affine in the batch.
"""

from __future__ import annotations

from python_tests.shapes import ConvShape

EMULATED, H100 = 8, 132  # multiprocessors: the emulator's device, a GPU's
START, LAUNCH, SHARE, MAX_SPLITS = 4, 8, 7168, 1024
CHUNK_PIXELS = 32  # fp16


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def splits(shape: ConvShape, multiprocessors: int) -> int:
    """fp16, one group."""
    n, k, p, q = shape.y_size
    columns = shape.r * shape.s * shape.c
    gathers = shape.c % 8 != 0 or k % 8 != 0
    tile = 128 if not gathers and k >= 128 and columns >= 128 else 64
    chunks = _ceil(n * p * q, CHUNK_PIXELS)
    tiles = _ceil(k, tile) * _ceil(columns, tile)

    def time(count: int) -> float:
        """In chunks of 128 x 128 on one multiprocessor."""
        rounds = _ceil(tiles * count, multiprocessors)
        blocks = rounds * (_ceil(chunks, count) + START) * (tile / 128) ** 2
        partials = LAUNCH + count * k * columns * 8 / (multiprocessors * SHARE)
        return blocks + partials * (count > 1)

    most = min(chunks, MAX_SPLITS, 2 * multiprocessors // tiles + 1)
    counts = (_ceil(chunks, _ceil(chunks, wanted)) for wanted in range(1, most + 1))
    return min(counts, key=time)


def partial_bytes(shape: ConvShape, multiprocessors: int) -> int:
    """Of the partial sums, each written once and read once; a single split writes the gradient."""
    count = splits(shape, multiprocessors)
    return 2 * count * shape.k * shape.r * shape.s * shape.c * 4 * (count > 1)
