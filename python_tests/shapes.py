"""Shapes shared by tests and benchmarks: the distinct convolutions of ResNets, and hostile ones."""

from __future__ import annotations

from typing import NamedTuple

import torch

DTYPE_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
}


class ConvShape(NamedTuple):
    """One convolution; `count` is how often the network has it."""

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    count: int = 1  # type: ignore[assignment]  # hides tuple.count

    @property
    def id(self) -> str:
        parts = [f"N{self.n}", f"C{self.c}", f"H{self.h}", f"K{self.k}", f"R{self.r}"]
        parts.insert(3, f"W{self.w}") if self.w != self.h else None
        parts.append(f"S{self.s}") if self.s != self.r else None
        parts.append("s" + "x".join(map(str, sorted(set(self.stride)))))
        parts.append("p" + "x".join(map(str, sorted(set(self.padding)))))
        parts.append("d" + "x".join(map(str, self.dilation))) if self.dilation != (1, 1) else None
        parts.append(f"g{self.groups}") if self.groups != 1 else None
        return "-".join(parts)

    @property
    def x_size(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w

    @property
    def w_size(self) -> tuple[int, int, int, int]:
        return self.k, self.c // self.groups, self.r, self.s

    @property
    def y_size(self) -> tuple[int, int, int, int]:
        p, q = (
            (size + 2 * pad - dil * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dil in zip(
                (self.h, self.w),
                (self.r, self.s),
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )
        return self.n, self.k, p, q

    @property
    def reduction_length(self) -> int:
        """Products summed for one output."""
        return self.c // self.groups * self.r * self.s

    def conv_args(self) -> dict:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def at(self, n: int, size: int | None = None) -> ConvShape:
        """The same layer at another batch size and, if given, another (square) image size."""
        return self._replace(n=n, h=size or self.h, w=size or self.w)


def _square(c: int, h: int, k: int, r: int, stride: int = 1, count: int = 1) -> ConvShape:
    pad = r // 2
    return ConvShape(1, c, h, h, k, r, r, (stride, stride), (pad, pad), count=count)


RESNET18 = [
    _square(3, 224, 64, 7, 2),
    _square(64, 56, 64, 3, count=4),
    _square(64, 56, 128, 3, 2),
    _square(64, 56, 128, 1, 2),
    _square(128, 28, 128, 3, count=3),
    _square(128, 28, 256, 3, 2),
    _square(128, 28, 256, 1, 2),
    _square(256, 14, 256, 3, count=3),
    _square(256, 14, 512, 3, 2),
    _square(256, 14, 512, 1, 2),
    _square(512, 7, 512, 3, count=3),
]

# torchvision's ResNet-50 (v1.5): the 3x3 convolution carries the stride.
RESNET50 = [
    _square(3, 224, 64, 7, 2),
    _square(64, 56, 64, 1),
    _square(64, 56, 64, 3, count=3),
    _square(64, 56, 256, 1, count=4),
    _square(256, 56, 64, 1, count=2),
    _square(256, 56, 128, 1),
    _square(128, 56, 128, 3, 2),
    _square(128, 28, 512, 1, count=4),
    _square(256, 56, 512, 1, 2),
    _square(512, 28, 128, 1, count=3),
    _square(128, 28, 128, 3, count=3),
    _square(512, 28, 256, 1),
    _square(256, 28, 256, 3, 2),
    _square(256, 14, 1024, 1, count=6),
    _square(512, 28, 1024, 1, 2),
    _square(1024, 14, 256, 1, count=5),
    _square(256, 14, 256, 3, count=5),
    _square(1024, 14, 512, 1),
    _square(512, 14, 512, 3, 2),
    _square(512, 7, 2048, 1, count=3),
    _square(1024, 14, 2048, 1, 2),
    _square(2048, 7, 512, 1, count=2),
    _square(512, 7, 512, 3, count=2),
]

RESNET = list(dict.fromkeys(s._replace(count=1) for s in RESNET18 + RESNET50))

HOSTILE = [
    ConvShape(2, 1, 5, 7, 1, 3, 3, (1, 1), (1, 1)),
    ConvShape(1, 3, 9, 9, 17, 3, 3, (2, 2), (1, 1)),
    ConvShape(3, 17, 7, 5, 35, 1, 1),
    ConvShape(1, 35, 1, 1, 65, 1, 1),  # channels_last and contiguous at once
    ConvShape(3, 65, 1, 1, 3, 1, 1),
    ConvShape(2, 5, 1, 9, 6, 1, 3, (1, 2), (0, 1)),
    ConvShape(2, 4, 8, 8, 8, 2, 2, (3, 3)),  # stride > kernel
    ConvShape(2, 3, 3, 3, 4, 3, 3, (1, 1), (4, 4)),  # padding >= kernel
    ConvShape(0, 8, 6, 6, 4, 3, 3, (1, 1), (1, 1)),
    ConvShape(1, 6, 3, 3, 4, 3, 3),  # N * P * Q = 1
    ConvShape(1, 2, 37, 41, 3, 3, 3, (1, 1), (1, 1)),  # odd M
    ConvShape(2, 8, 9, 9, 12, 3, 3, (1, 1), (2, 2), (2, 2), 4),
    ConvShape(2, 6, 8, 6, 6, 3, 5, (2, 1), (1, 2), (1, 1), 6),  # depthwise
    ConvShape(1, 1, 130, 131, 2, 1, 1),  # long M
]

# Activations [N, C, H, W] for ops that see no convolution.
ACTIVATIONS = [
    (2, 64, 14, 14),
    (1, 1, 5, 7),
    (3, 3, 1, 1),
    (2, 17, 9, 1),
    (3, 35, 7, 5),
    (1, 65, 3, 3),
    (2, 130, 4, 4),
    (0, 8, 4, 4),
    (1, 2, 131, 127),
]


def size_id(size: tuple[int, ...]) -> str:
    """(2, 64, 14, 14) -> N2-C64-H14-W14."""
    return "-".join(f"{name}{value}" for name, value in zip("NCHW", size, strict=True))
