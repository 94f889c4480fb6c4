"""Batch norm primitives in plain torch. y, z, g [N, K, P, Q]; vectors [K] fp32 (fp64)."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import (
    accumulate_dtype,
    apply_act,
    apply_act_grad,
    channel_sum,
    pack_mask,
    per_channel,
    store,
    unpack_mask,
    up,
)


def bn_stats(x: Tensor) -> Tensor:
    value = up(x)
    channels = x.shape[1]
    m = x.numel() // channels
    count = torch.full((channels,), m, dtype=value.dtype, device=x.device)
    if m == 0:
        return torch.stack([count, count, count])
    mean = channel_sum(value) / m
    centred = value - per_channel(mean)
    residue = channel_sum(centred) / m
    m2 = channel_sum(centred.square_()) - m * residue * residue
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
    rstd = 1 / torch.sqrt(running_var.to(mean.dtype) + eps)
    return mean, rstd, *_affine(mean, rstd, gamma, beta)


def pre_act(
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    scale2: Tensor | None = None,
    bias2: Tensor | None = None,
) -> Tensor:
    t = up(y) * per_channel(scale) + per_channel(bias)
    if residual is None:
        return t
    if scale2 is None or bias2 is None:
        return t + up(residual)
    return t + (up(residual) * per_channel(scale2) + per_channel(bias2))


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
    return store(apply_act(pre_act(y, scale, bias, residual, scale2, bias2), act, slope), y)


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
    t = pre_act(y, scale, bias, residual, scale2, bias2)
    return store(apply_act(t, act, slope), y), pack_mask(store(t > 0, y.to(torch.bool)))


def masked_grad(
    dz: Tensor, t: Tensor | None, mask: Tensor | None, act: int, slope: float
) -> Tensor:
    """dz * act' in fp32, from the bit mask where there is one, else from t."""
    if mask is not None:
        t = unpack_mask(mask, dz).to(torch.int8)
    if t is None:
        raise ValueError(
            "mask: expected a bit mask where the pre-activation is not given, got None"
        )
    return apply_act_grad(up(dz), t, act, slope)


def bn_sums(g: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    xhat = (up(y) - per_channel(mean)) * per_channel(rstd)
    return torch.stack([channel_sum(g), channel_sum(g * xhat)])


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
    g = apply_act_grad(up(dz), pre_act(y, scale, bias), act, slope)
    return bn_sums(g, y, mean, rstd)


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
    t = None if mask is not None else pre_act(y, scale, bias, residual)
    g = store(masked_grad(dz, t, mask, act, slope), dz)
    return g, bn_sums(up(g), y, mean, rstd)


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
    t = None if mask is not None else pre_act(y, scale, bias, y2, scale2, bias2)
    g = store(masked_grad(dz, t, mask, act, slope), dz)
    return g, bn_sums(up(g), y, mean, rstd), bn_sums(up(g), y2, mean2, rstd2)


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
    value = up(g)
    if scale is not None and bias is not None:
        value = apply_act_grad(value, pre_act(y, scale, bias), act, slope)
    a, b, c = (per_channel(v) for v in abc)
    return store(a * value + b * (up(y) - per_channel(mean)) + c, g)
