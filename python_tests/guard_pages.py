"""Runs the CPU convolutions on tensors that end, or begin, where memory ends: for a process of its
own, which the system kills if a kernel touches anything beyond (test_guard_pages.py)."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator

import torch
from bn_cases import OPS, RELU
from conv_cases import SHAPES, draw, filter_of, geometry, prologue
from shapes import ConvShape
from test_conv_dgrad import bn_arguments
from torch import Tensor

from resnet_kernels.ops.layout import conv_memory_format

PAGE, PROT_NONE = mmap.PAGESIZE, 0
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
# Of a tensor that nothing keeps the memory is unmapped, with the guards in it.
_regions: list[mmap.mmap] = []


def guarded(t: Tensor, at_end: bool) -> Tensor:
    """A dense tensor's copy whose last byte, or first, stands next to a page without access."""
    bytes_ = t.numel() * t.element_size()
    pages = -(-bytes_ // PAGE) * PAGE
    region = mmap.mmap(-1, pages + 2 * PAGE)
    _regions.append(region)
    start = ctypes.addressof(ctypes.c_char.from_buffer(region))
    offset = PAGE + (pages - bytes_ if at_end else 0)
    flat = torch.frombuffer(region, dtype=t.dtype, count=t.numel(), offset=offset)
    for guard in (start, start + PAGE + pages):
        if _mprotect(guard, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    return flat.as_strided(t.shape, t.stride()).copy_(t)


def calls(shape: ConvShape, dtype: torch.dtype, at_end: bool) -> Iterator[tuple[object, ...]]:
    """Every op that reads tensors of an activation's or a filter's size, with all of them there."""
    d = draw(torch.Generator().manual_seed(shape.c + shape.h), dtype)

    def near(t: Tensor | None) -> Tensor | None:
        return t if t is None or t.numel() == 0 else guarded(t, at_end)

    x, dy = near(d.activation(shape.x_size)), near(d.activation(shape.y_size))
    w, conv = near(filter_of(d, shape, "nhwc")), geometry(shape)
    scale, bias, *act = prologue(d, shape.c, RELU)
    before = (near(scale), near(bias), *act)
    added = d.activation(shape.y_size).contiguous(memory_format=conv_memory_format(x, w))
    after = (near(d.vector(shape.k)), near(d.vector(shape.k)), near(added))
    yield "conv_fwd", x, w, *before, *after, RELU, 0.0, *conv
    yield "conv_fwd_stats", x, w, *before, *conv
    yield "conv_wgrad", dy, x, w, *before, *conv
    other = d.activation(shape.x_size).contiguous(memory_format=conv_memory_format(dy, w))
    branch = near(other)
    yield "conv_dgrad", dy, w, branch, list(shape.x_size), *conv
    for mask in (False, True):
        vectors = map(near, bn_arguments(d, shape, mask))
        yield "conv_dgrad_bn", dy, w, branch, *vectors, RELU, 0.0, *conv


def main() -> None:
    dtype, count = getattr(torch, sys.argv[1]), 0
    for shape in SHAPES:
        for at_end in (True, False):
            for name, *arguments in calls(shape, dtype, at_end):
                getattr(OPS, name)(*arguments)
                count += 1
            _regions.clear()
    print(count)


if __name__ == "__main__":
    main()
