"""What the reference ops share: dtypes, activations, layouts, tf32 rounding, bit masks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ACTS = ("identity", "relu", "gelu", "silu", "leaky_relu")
IDENTITY, RELU, GELU, SILU, LEAKY_RELU = range(len(ACTS))


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64, else fp32: the dtype of sums, statistics and per-channel vectors."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def round_tf32(x: Tensor) -> Tensor:
    """Nearest tf32 value, ties away from zero (cvt.rna.tf32.f32); NaN and infinity stay."""
    bits = x.contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    return torch.where(x.isfinite(), rounded.view_as(x), x)


def apply_act(t: Tensor, act: int, slope: float) -> Tensor:
    if act == RELU:
        return t.relu()
    if act == GELU:
        return F.gelu(t)
    if act == SILU:
        return F.silu(t)
    if act == LEAKY_RELU:
        return F.leaky_relu(t, slope)
    return t


def apply_act_grad(dz: Tensor, t: Tensor, act: int, slope: float) -> Tensor:
    """dz * act'(t). A masked-out dz counts as zero even where it is not finite, as in torch."""
    if act == RELU:
        return torch.where(t > 0, dz, 0.0)
    if act == GELU:
        cdf = 0.5 * (1 + torch.erf(t * math.sqrt(0.5)))
        return dz * (cdf + t * torch.exp(-0.5 * t * t) * (1 / math.sqrt(2 * math.pi)))
    if act == SILU:
        sigmoid = torch.sigmoid(t)
        return dz * (sigmoid * (1 + t * (1 - sigmoid)))
    if act == LEAKY_RELU:
        return torch.where(t > 0, dz, dz * slope)
    return dz


def up(x: Tensor) -> Tensor:
    return x.to(accumulate_dtype(x.dtype))


def per_channel(v: Tensor) -> Tensor:
    return v[:, None, None]


def channel_sum(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3))


def store(value: Tensor, like: Tensor) -> Tensor:
    """A fresh tensor with the strides and dtype of `like`."""
    return torch.empty_like(like).copy_(value)


def in_layout_of(value: Tensor, x: Tensor) -> Tensor:
    """value, dense in the memory layout of x (contiguous where x fits both layouts)."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return value.contiguous()
    return value.contiguous(memory_format=torch.channels_last)


def _memory_order(x: Tensor) -> Tensor:
    return (x if x.is_contiguous() else x.permute(0, 2, 3, 1)).reshape(-1)


def pack_mask(positive: Tensor) -> Tensor:
    """Boolean [N, K, P, Q] -> uint8 [ceil(numel / 8)], lowest bit first, in memory order."""
    bits = _memory_order(positive).to(torch.uint8)
    bits = F.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits * weights).sum(1).to(torch.uint8)


def unpack_mask(mask: Tensor, like: Tensor) -> Tensor:
    """The inverse of pack_mask, as a boolean tensor in the layout of `like`."""
    shifts = torch.arange(8, dtype=torch.uint8, device=mask.device)
    bits = ((mask[:, None] >> shifts) & 1).view(-1)[: like.numel()].bool()
    n, k, p, q = like.shape
    if like.is_contiguous():
        return bits.view(n, k, p, q)
    return bits.view(n, p, q, k).permute(0, 3, 1, 2)
