"""Seeded tensors for tests: activations in any memory layout, parameters of a conv-BN layer.

All are drawn on the CPU, then moved to the running test's device (backends.device()).
"""

from __future__ import annotations

import torch
from backends import device
from shapes import ConvShape
from torch import Tensor

LAYOUTS = ("channels_last", "contiguous", "sliced", "expanded")


def vector_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def normal(rng: torch.Generator, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*size, generator=rng, dtype=torch.float64).to(dtype).to(device())


def activation(
    rng: torch.Generator,
    size: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: str = "channels_last",
) -> Tensor:
    """[N, C, H, W] in a layout of LAYOUTS; sliced: part of a larger tensor; expanded: stride 0."""
    n, c, h, w = size
    if layout == "sliced":
        return normal(rng, n, c + 2, h + 1, 2 * w, dtype=dtype)[:, 1 : c + 1, 1:, ::2]
    if layout == "expanded":
        return normal(rng, n, c, 1, w, dtype=dtype).expand(size)
    x = normal(rng, *size, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def weight(rng: torch.Generator, shape: ConvShape, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scaled so that outputs are of order 1."""
    k, c, r, s = shape.w_size
    value = torch.randn(k, c, r, s, generator=rng, dtype=torch.float64) * (c * r * s) ** -0.5
    return value.to(dtype).to(device())


def bn_tensors(
    rng: torch.Generator, channels: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """gamma, beta, running_mean, running_var [channels] for activations of `dtype`."""
    kind = vector_dtype(dtype)
    return {
        "gamma": 1 + 0.3 * normal(rng, channels, dtype=kind),
        "beta": 0.5 * normal(rng, channels, dtype=kind),
        "running_mean": 0.5 * normal(rng, channels, dtype=kind),
        "running_var": 0.5 + torch.rand(channels, generator=rng, dtype=kind).to(device()),
    }


BUFFERS = ("running_mean", "running_var")


def trainable(tensors: dict[str, Tensor | None]) -> list[str]:
    """Names of tensors that take gradients: all but running statistics and absent ones."""
    return [n for n, v in tensors.items() if v is not None and not n.startswith("running")]
