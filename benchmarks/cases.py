"""What an op bench measures: a primitive on one layer, the same in stock PyTorch, what it needs.

Inputs are seeded and drawn on the device. On the meta device a case has its name and sizes alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from python_tests.shapes import ConvShape
from resnet_kernels.ops.acts import RELU

from .layers import Layers, has_prologue

# Name on the command line -> dtype of activations; tf32 is a way to multiply fp32.
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
EPS = 1e-5
MOMENTUM = 0.1
RELU_ARGS = (RELU, 0.0)
NO_PROLOGUE: tuple[Any, ...] = (None, None, 0, 0.0)


def primitive(name: str) -> Callable[..., Any]:
    """run(namespace, *args) of one primitive."""
    return lambda namespace, *args: getattr(namespace, name)(*args)


class Need(NamedTuple):
    """Products that the definition sums, and bytes of the arguments that need not be read (less
    than zero: that must be read again)."""

    multiply_adds: int = 0
    unread: int = 0


NOTHING_MORE = Need()


@dataclasses.dataclass(frozen=True)
class Case:
    """One op on one layer.

    Args:
        op: the name in ops/schemas.py, or of a chain of them.
        layer: shape in words. count: how often the network has it.
        run: run(namespace, *args): a namespace of torch.ops, or the reference, gives one or more
            tensors.
        args: tensors in channels_last memory on the device, and what else the op takes.
        eager: what stock PyTorch runs in its place, on `stock`; equal to `wanted(results of run)`.
        need: what the op must do, beside reading its arguments once.
    """

    op: str
    layer: str
    count: int
    run: Callable[..., Any]
    args: tuple[Any, ...]
    eager: Callable[..., Any]
    stock: tuple[Any, ...]
    wanted: Callable[..., tuple[Tensor, ...]] = lambda *results: results
    need: Need = NOTHING_MORE

    @property
    def name(self) -> str:
        return f"{self.op} {self.layer}"

    def mapped(self, wanted: Callable[..., tuple[Tensor, ...]]) -> Case:
        """The case with this `wanted`."""
        return dataclasses.replace(self, wanted=wanted)

    def bytes_needed(self, results: Sequence[Tensor]) -> int:
        """Each input read once, each result written once: what DRAM must move."""
        tensors = [t for t in (*self.args, *results) if isinstance(t, Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors) - self.need.unread


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes tensors of a batch in a dtype on a device."""

    batch: int
    dtype: str
    device: torch.device

    @property
    def tf32(self) -> bool:
        return self.dtype == "tf32"

    def activation(self, size: Sequence[int], seed: int = 0) -> Tensor:
        """Normal [N, C, H, W] in channels_last memory."""
        values = self._drawn(torch.randn, tuple(size), seed).to(DTYPES[self.dtype])
        return values.contiguous(memory_format=torch.channels_last)

    def weight(self, shape: ConvShape) -> Tensor:
        """[K, C, R, S], scaled so that outputs have the size of inputs."""
        return self.activation(shape.w_size, 1) / math.sqrt(shape.reduction_length)

    def vectors(self, channels: int, count: int, seed: int = 2) -> list[Tensor]:
        """`count` positive [C] fp32 vectors."""
        return [v.clone() for v in self._drawn(torch.rand, (count, channels), seed) + 0.5]

    def _drawn(self, draw: Callable[..., Tensor], size: tuple[int, ...], seed: int) -> Tensor:
        if self.device.type == "meta":
            return torch.empty(size, device=self.device)
        generator = torch.Generator(self.device).manual_seed(seed)
        return draw(size, generator=generator, device=self.device)

    def geometry(self, shape: ConvShape) -> tuple[Any, ...]:
        return shape.stride, shape.padding, shape.dilation, shape.groups, self.tf32

    def before(self, shape: ConvShape) -> tuple[Any, ...]:
        """The prologue that the layer has in the network."""
        if not has_prologue(shape):
            return NO_PROLOGUE
        return (*self.vectors(shape.c, 2), *RELU_ARGS)


CasesOf = Callable[[Layers, Maker], Iterator[Case]]


class Affine:
    """scale * x + bias per channel as stock batch norm in evaluation does it: mean 0, variance 1.

    The variance is 1 - eps, and not eps 0, which cuDNN refuses.
    """

    def __init__(self, scale: Tensor, bias: Tensor) -> None:
        self.tensors = (torch.zeros_like(scale), torch.full_like(scale, 1 - EPS), scale, bias)

    @staticmethod
    def apply(x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=EPS)


# A pre-activation nearer to zero than this may land on either side of relu's kink, by rounding.
KINK = 1e-4


class Norm:
    """State of a batch norm on y in training: ours, and what stock PyTorch keeps for backward.

    y has no value whose relu is undecided.
    """

    def __init__(self, y: Tensor, make: Maker) -> None:
        self.gamma, self.beta = make.vectors(y.shape[1], 2)
        undecided = self._forward(y).abs() < KINK
        self.y = torch.where(undecided, y + 0.25, y)
        z = self._forward(self.y)
        self.scale = self.gamma * self.rstd
        self.bias = self.beta - self.mean * self.scale
        self.z = z
        self.count = torch.full((1,), float(y.numel() // y.shape[1]), device=y.device)

    def _forward(self, y: Tensor) -> Tensor:
        z, self.mean, self.rstd, self.reserve, self.index = torch.ops.aten._batch_norm_impl_index(
            y, self.gamma, self.beta, None, None, True, MOMENTUM, EPS, torch.backends.cudnn.enabled
        )
        return z

    @property
    def state(self) -> tuple[Tensor, ...]:
        return self.mean, self.rstd, self.scale, self.bias

    @property
    def kept(self) -> tuple[Any, ...]:
        """What `stock_backward` needs beside g."""
        return self.y, self.gamma, self.mean, self.rstd, self.reserve, self.index


def stock_backward(g: Tensor, kept: Sequence[Any], with_dy: bool) -> tuple[Tensor, ...]:
    """dy, dgamma, dbeta, or the last two, by the implementation that stock batch norm chose.

    kept: Norm.kept.
    """
    y, gamma, mean, rstd, reserve, index = kept
    found = torch.ops.aten._batch_norm_impl_index_backward(
        index, y, g, gamma, None, None, mean, rstd, True, EPS, [with_dy, True, True], reserve
    )
    return found if with_dy else found[1:]


def touched_part(shape: ConvShape) -> float:
    """The part of the input's pixels that some output reads: 1/4 of a 1x1 layer of stride 2."""
    part = 1.0
    for outputs, taps, stride, pad, dilation, size in zip(
        shape.y_size[2:], (shape.r, shape.s), shape.stride, shape.padding, shape.dilation,
        (shape.h, shape.w), strict=True,
    ):  # fmt: skip
        met = {p * stride - pad + r * dilation for p in range(outputs) for r in range(taps)}
        part *= len(met & set(range(size))) / size
    return part


def conv_need(shape: ConvShape, x: Tensor | None = None) -> Need:
    """Of a convolution; x: its input, where the op reads it."""
    products = math.prod(shape.y_size) * shape.reduction_length
    if x is None:
        return Need(products)
    skipped = round((1 - touched_part(shape)) * x.numel()) * x.element_size()
    return Need(products, skipped)


def in_layout(values: Sequence[Any], layout: torch.memory_format) -> tuple[Any, ...]:
    """The values with every tensor [N, C, H, W] in this memory format."""
    return tuple(
        v.contiguous(memory_format=layout) if isinstance(v, Tensor) and v.dim() == 4 else v
        for v in values
    )
