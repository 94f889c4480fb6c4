"""The pixels of a strided convolution's input, split by their phase modulo the stride.

Pixel h of the input meets tap r where (h + padding - r * dilation) is p * stride. Among the pixels
h = first + i * stride of a phase these are the taps tap, tap + tap_step, ..., and tap number j
of them reads p = start + i - j * step: a convolution of stride 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .geometry import Geometry
from .tensors import cdiv


class Axis(NamedTuple):
    """A phase along one dimension, as above; `pixels` of it, and `taps` that meet them."""

    first: int
    pixels: int
    tap: int
    taps: int
    tap_step: int
    start: int
    step: int


class Phase(NamedTuple):
    h: Axis
    w: Axis


def axis_phases(size: int, taps: int, stride: int, padding: int, dilation: int) -> list[Axis]:
    """The phases along a dimension that have pixels."""
    tap_step = stride // math.gcd(stride, dilation)
    step = tap_step * dilation // stride
    phases = []
    for first in range(min(stride, size)):
        meeting = [r for r in range(taps) if (first + padding - r * dilation) % stride == 0]
        tap = meeting[0] if meeting else 0
        start = (first + padding - tap * dilation) // stride
        pixels = cdiv(size - first, stride)
        phases.append(Axis(first, pixels, tap, len(meeting), tap_step, start, step))
    return phases


def phases_of(g: Geometry) -> list[Phase]:
    pairs = zip((g.h, g.w), (g.r, g.s), g.stride, g.padding, g.dilation, strict=True)
    rows, columns = (axis_phases(*pair) for pair in pairs)
    return [Phase(h, w) for h in rows for w in columns]
