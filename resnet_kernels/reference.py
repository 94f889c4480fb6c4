"""Every primitive in a few lines of plain torch: the definition the kernels are held to.

Any device, any floating dtype; called with fp64 tensors it is the oracle of the tests. Argument order is that of
ops/schemas.py. fp16 and bf16 accumulate in fp32. Values are rounded to the activation dtype exactly where a
kernel stores or multiplies them: y, z, g, dy, dx, the prologue's result; never between conv and its epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops.acts import GELU, LEAKY_RELU, RELU, SILU


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


def _up(x: Tensor) -> Tensor:
    return x.to(accumulate_dtype(x.dtype))


def _per_channel(v: Tensor) -> Tensor:
    return v[:, None, None]


def _sum(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3))


def _store(value: Tensor, like: Tensor) -> Tensor:
    """A fresh tensor with the strides and dtype of `like`."""
    return torch.empty_like(like).copy_(value)


def is_channels_last(x: Tensor) -> bool:
    """Whether a dense 4-d tensor lies in channels_last memory; by its strides where both readings fit."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return not x.is_contiguous() or (x.stride(1) == 1 and x.stride(3) == x.shape[1] > 1)


def memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


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


def bn_stats(x: Tensor) -> Tensor:
    value = _up(x)
    channels = x.shape[1]
    m = x.numel() // channels
    count = torch.full((channels,), m, dtype=value.dtype, device=x.device)
    if m == 0:
        return torch.stack([count, count, count])
    mean = _sum(value) / m
    centred = value - _per_channel(mean)
    residue = _sum(centred) / m
    m2 = _sum(centred.square_()) - m * residue * residue
    return torch.stack([count, mean + residue, m2.clamp_(min=0)])


def _affine(
    mean: Tensor, rstd: Tensor, gamma: Tensor | None, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    scale = rstd.clone() if gamma is None else gamma.to(rstd.dtype) * rstd
    bias = -mean * scale if beta is None else beta.to(rstd.dtype) - mean * scale
    return scale, bias


def _blend(running: Tensor, new: Tensor, factor: Tensor | float, valid: Tensor) -> None:
    old = running.to(new.dtype)
    running.copy_(torch.where(valid, old * (1 - factor) + new * factor, old))


def bn_finalize(
    stats: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    conv_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    counts, means, m2s = stats[:, 0], stats[:, 1], stats[:, 2]
    m = counts.sum(0)
    safe_m = m.clamp(min=1)
    mean = means[0] + (counts * (means - means[0])).sum(0) / safe_m
    m2 = (m2s + counts * (means - mean).square()).sum(0)
    rstd = 1 / torch.sqrt(m2 / safe_m + eps)
    scale, bias = _affine(mean, rstd, gamma, beta)

    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    factor: Tensor | float = 0.0 if momentum is None else momentum
    if momentum is None and num_batches_tracked is not None:
        factor = 1 / num_batches_tracked.to(mean.dtype)
    if running_mean is not None:
        shifted = mean if conv_bias is None else mean + conv_bias.to(mean.dtype)
        _blend(running_mean, shifted, factor, m > 0)
    if running_var is not None:
        _blend(running_var, m2 / (m - 1), factor, m > 0)
    return mean, rstd, scale, bias, m[:1].clone()


def bn_affine(
    running_mean: Tensor,
    running_var: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    conv_bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = running_mean.to(accumulate_dtype(running_mean.dtype), copy=True)
    if conv_bias is not None:
        mean -= conv_bias
    rstd = 1 / torch.sqrt(_up(running_var) + eps)
    return mean, rstd, *_affine(mean, rstd, gamma, beta)


def _pre_act(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    scale2: Tensor | None = None,
    bias2: Tensor | None = None,
) -> Tensor:
    t = _up(y) * _per_channel(scale) + _per_channel(bias)
    if residual is None:
        return t
    if scale2 is None or bias2 is None:
        return t + _up(residual)
    return t + (_up(residual) * _per_channel(scale2) + _per_channel(bias2))


def bn_act_fwd(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    scale2: Tensor | None,
    bias2: Tensor | None,
    act: int,
    slope: float,
) -> Tensor:
    return _store(apply_act(_pre_act(y, scale, bias, residual, scale2, bias2), act, slope), y)


def bn_act_fwd_mask(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    scale2: Tensor | None,
    bias2: Tensor | None,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor]:
    t = _pre_act(y, scale, bias, residual, scale2, bias2)
    return _store(apply_act(t, act, slope), y), pack_mask(_store(t > 0, y.to(torch.bool)))


def _masked_grad(dz: Tensor, t: Tensor | None, mask: Tensor | None, act: int, slope: float) -> Tensor:
    """dz * act' in fp32, from the bit mask where there is one, else from t."""
    if mask is not None:
        t = unpack_mask(mask, dz).to(torch.int8)
    if t is None:
        raise ValueError("mask: expected a bit mask where the pre-activation is not given, got None")
    return apply_act_grad(_up(dz), t, act, slope)


def _sums(g: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    xhat = (_up(y) - _per_channel(mean)) * _per_channel(rstd)
    return torch.stack([_sum(g), _sum(g * xhat)])


def bn_act_bwd_reduce(
    dz: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    act: int,
    slope: float,
) -> Tensor:
    g = apply_act_grad(_up(dz), _pre_act(y, scale, bias), act, slope)
    return _sums(g, y, mean, rstd)


def bn_act_bwd_reduce_add(
    dz: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    mask: Tensor | None,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor]:
    t = None if mask is not None else _pre_act(y, scale, bias, residual)
    g = _store(_masked_grad(dz, t, mask, act, slope), dz)
    return g, _sums(_up(g), y, mean, rstd)


def bn_act_bwd_reduce_dual(
    dz: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    y2: Tensor,
    mean2: Tensor,
    rstd2: Tensor,
    scale2: Tensor,
    bias2: Tensor,
    mask: Tensor | None,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    t = None if mask is not None else _pre_act(y, scale, bias, y2, scale2, bias2)
    g = _store(_masked_grad(dz, t, mask, act, slope), dz)
    return g, _sums(_up(g), y, mean, rstd), _sums(_up(g), y2, mean2, rstd2)


def bn_bwd_finalize(sums: Tensor, gamma: Tensor | None, rstd: Tensor, count: Tensor) -> Tensor:
    a = rstd if gamma is None else gamma.to(rstd.dtype) * rstd
    m = count.clamp(min=1)
    return torch.stack([a, -a * rstd * sums[1] / m, -a * sums[0] / m])


def bn_bwd_apply(
    g: Tensor,
    y: Tensor,
    mean: Tensor,
    abc: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    act: int,
    slope: float,
) -> Tensor:
    value = _up(g)
    if scale is not None and bias is not None:
        value = apply_act_grad(value, _pre_act(y, scale, bias), act, slope)
    a, b, c = (_per_channel(v) for v in abc)
    return _store(a * value + b * (_up(y) - _per_channel(mean)) + c, g)


def _prologue(x: Tensor, scale: Tensor | None, bias: Tensor | None, act: int, slope: float) -> Tensor:
    if scale is None or bias is None:
        return x
    return bn_act_fwd(x, scale, bias, None, None, None, act, slope)
