"""What tests of the implicit-GEMM kernels share: cases of every instantiation, exact comparison."""

from __future__ import annotations

import itertools

import torch
from bn_cases import GELU, IDENTITY, LEAKY, OPS, RELU, SILU, Draw, as_double
from shapes import ConvShape
from torch import Tensor

from resnet_kernels import reference

# Operands, and whether fp32 may be rounded to tf32.
OPERANDS = {
    "fp16": (torch.float16, False),
    "bf16": (torch.bfloat16, False),
    "tf32": (torch.float32, True),
    "fp32": (torch.float32, False),
}
TENSOR_CORES = ("fp16", "bf16", "tf32")
TILES = ("128x128", "128x64", "64x64")
ACTS = (IDENTITY, RELU, GELU, SILU, LEAKY)
NONE = (None, None, IDENTITY, 0.0)
PLAIN = (None, None, None, IDENTITY, 0.0)


def conv(n: int, c: int, h: int, w: int, k: int, r: int, **geometry) -> ConvShape:
    return ConvShape(n, c, h, w, k, r, r, **({"padding": (r // 2, r // 2)} | geometry))


# By how the input is addressed; rows and columns end inside a tile, chunks inside a tap, outputs
# come in whole vectors and not.
ADDRESSING = {
    "pointwise": [conv(3, 72, 7, 7, 136, 1), conv(1, 40, 3, 3, 67, 1)],
    "convolution": [
        conv(2, 24, 9, 11, 136, 3, stride=(2, 1)),
        conv(1, 72, 7, 7, 33, 3, dilation=(2, 1), padding=(2, 0)),
        conv(2, 64, 5, 5, 48, 3, groups=2),
        conv(1, 16, 8, 8, 24, 2, stride=(3, 3), padding=(1, 0)),
        conv(1, 8, 7, 6, 16, 5),
    ],
    "window": [
        conv(1, 3, 17, 17, 64, 7, stride=(2, 2)),
        conv(2, 13, 6, 5, 35, 3),
        conv(1, 2, 9, 9, 3, 3, padding=(4, 4), dilation=(2, 1)),
        conv(1, 3, 4, 150, 5, 3, stride=(1, 2)),
        conv(70, 5, 1, 1, 8, 1),
    ],
    "gather": [
        conv(1, 3, 17, 17, 64, 5, stride=(2, 2), dilation=(1, 2), padding=(2, 4)),
        conv(2, 13, 6, 5, 35, 3, dilation=(1, 3), padding=(1, 3)),
        conv(1, 257, 3, 40, 3, 3),
    ],
}
SHAPES = [shape for shapes in ADDRESSING.values() for shape in shapes]
# Forward takes the tile it is told to only where its kernels come in several.
VARIANTS = [
    (name, tile, addressing)
    for name, tile, addressing in itertools.product(OPERANDS, TILES, ADDRESSING)
    if tile == "64x64" or (name in TENSOR_CORES and addressing not in ("gather", "window"))
]


def draw(rng: torch.Generator, name: str, exact: bool = True) -> Draw:
    return Draw(rng, (OPERANDS[name][0], "nhwc"), exact)


def aligned(t: Tensor) -> Tensor:
    """A copy that starts at a whole 16 bytes, so that its channels are read in pieces."""
    return t.clone(memory_format=torch.preserve_format)


def geometry(shape: ConvShape, name: str) -> tuple:
    return shape.stride, shape.padding, shape.dilation, shape.groups, OPERANDS[name][1]


def equal(ours: Tensor, exact: Tensor) -> bool:
    return torch.equal(ours, exact.to(ours.dtype))


def scaled_filter(d: Draw, shape: ConvShape) -> Tensor:
    return d.activation(shape.w_size) * shape.reduction_length**-0.5


def transposed(shape: ConvShape) -> ConvShape:
    """Input and output channels exchanged: the depth of this gradient's GEMM is that of forward."""
    return shape._replace(c=shape.k, k=shape.c) if shape.groups == 1 else shape


def check_batch_norm_gradient(args: tuple) -> None:
    g, sums = OPS.conv_dgrad_bn(*args)
    want, _ = reference.conv_dgrad_bn(*map(as_double, args))
    assert equal(g, want)
    y, mean, rstd = (t.double() for t in args[3:6])
    xhat = (y - mean[:, None, None]) * rstd[:, None, None]
    exact = torch.stack([(g.double() * by).sum((0, 2, 3)) for by in (torch.ones_like(xhat), xhat)])
    size = torch.stack(
        [(g.double() * by).abs().sum((0, 2, 3)) for by in (torch.ones_like(xhat), xhat)]
    )
    assert ((sums.double() - exact).abs() <= 1e-6 * size + 1e-6).all()
