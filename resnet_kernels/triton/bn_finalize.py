"""bn_finalize: statistics [G, 3, K] of G groups -> mean, rstd, scale, bias [K] and the count [1].

Groups are merged around the first one's mean. Updates running_mean and running_var [K] (any float
dtype) as torch does: unbiased variance, momentum=None as 1 / num_batches_tracked.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .common import number, rounded, up
from .launch import launch
from .tensors import Vector, cdiv, require
from .vectors import BLOCK, check_any_float, sqrt, store_affine


@triton.jit
def _blend(running, c, keep, new, factor):
    """running = running * (1 - factor) + new * factor."""
    old = up(tl.load(running + c, mask=keep, other=0.0)).to(new.dtype)
    tl.store(running + c, rounded(old * (1 - factor) + new * factor, running), mask=keep)


@triton.jit(do_not_specialize=["G", "K"])
def _bn_finalize(
    stats,
    gamma,
    beta,
    conv_bias,
    running_mean,
    running_var,
    tracked,
    mean_out,
    rstd_out,
    scale_out,
    bias_out,
    count_out,
    G,
    K,
    momentum: tl.float64,
    eps: tl.float64,
    AVERAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = c < K
    first = tl.load(stats + K + c, mask=keep, other=0.0)
    m = tl.zeros_like(first)
    shift = tl.zeros_like(first)
    for group in range(0, G):
        at = stats + group * 3 * K + c
        count = tl.load(at, mask=keep, other=0.0)
        shift += count * (tl.load(at + K, mask=keep, other=0.0) - first)
        m += count
    safe_m = tl.maximum(m, 1.0)
    mean = first + shift / safe_m
    m2 = tl.zeros_like(first)
    for group in range(0, G):
        at = stats + group * 3 * K + c
        apart = tl.load(at + K, mask=keep, other=0.0) - mean
        count = tl.load(at, mask=keep, other=0.0)
        m2 += tl.load(at + 2 * K, mask=keep, other=0.0) + count * apart * apart
    rstd = 1 / sqrt(m2 / safe_m + number(eps, m2))
    tl.store(mean_out + c, mean, mask=keep)
    store_affine(rstd_out, scale_out, bias_out, c, keep, mean, rstd, gamma, beta)
    tl.store(count_out + c, m, mask=c == 0)

    factor = tl.zeros_like(first) + number(momentum, first)
    if AVERAGE:
        factor = 1 / (tl.zeros_like(first) + tl.load(tracked).to(first.dtype))
    seen = keep & (m > 0)
    if running_mean is not None:
        shifted = mean
        if conv_bias is not None:
            shifted += tl.load(conv_bias + c, mask=keep, other=0.0).to(mean.dtype)
        _blend(running_mean, c, seen, shifted, factor)
    if running_var is not None:
        _blend(running_var, c, seen, m2 / (m - 1), factor)


def bn_finalize(
    stats: Tensor,
    gamma: Vector,
    beta: Vector,
    conv_bias: Vector,
    running_mean: Vector,
    running_var: Vector,
    num_batches_tracked: Vector,
    momentum: float | None,
    eps: float,
) -> tuple[Tensor, ...]:
    require(
        stats.dim() == 3 and stats.shape[1] == 3 and stats.is_contiguous(),
        "stats: expected contiguous [G, 3, K]",
    )
    require(stats.dtype in (torch.float32, torch.float64), "stats: expected float32 or float64")
    channels = stats.shape[2]
    vectors = {
        "gamma": gamma,
        "beta": beta,
        "conv_bias": conv_bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    for name, v in vectors.items():
        check_any_float(v, channels, stats, name)
    out = [stats.new_empty(channels) for _ in range(4)] + [stats.new_empty(1)]
    if num_batches_tracked is not None:
        require(
            num_batches_tracked.numel() == 1 and num_batches_tracked.dtype == torch.int64,
            "num_batches_tracked: expected one int64",
        )
        # A launch of its own: all programs of the next one read it.
        num_batches_tracked.add_(1)
    average = momentum is None and num_batches_tracked is not None
    programs = max(cdiv(channels, BLOCK), 1)  # the count is written without channels too
    launch(
        _bn_finalize, programs, stats, *vectors.values(), num_batches_tracked if average else None,
        *out, stats.shape[0], channels, 0.0 if momentum is None else momentum, eps,
        AVERAGE=average, BLOCK=BLOCK,
    )  # fmt: skip
    return tuple(out)
