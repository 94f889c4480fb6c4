"""bn_affine: running statistics [K] (any float dtype) -> mean, rstd, scale, bias [K] of a fixed BN.

mean has conv_bias taken off, so that scale and bias apply to the convolution without its bias.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops.fakes import stats_dtype
from .common import number, up
from .launch import launch
from .tensors import Vector, cdiv
from .vectors import BLOCK, check_any_float, sqrt, store_affine


@triton.jit(do_not_specialize=["K"])
def _bn_affine(
    running_mean,
    running_var,
    gamma,
    beta,
    conv_bias,
    mean_out,
    rstd_out,
    scale_out,
    bias_out,
    K,
    eps: tl.float64,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = c < K
    mean = up(tl.load(running_mean + c, mask=keep, other=0.0)).to(mean_out.dtype.element_ty)
    var = up(tl.load(running_var + c, mask=keep, other=1.0)).to(mean_out.dtype.element_ty)
    if conv_bias is not None:
        mean -= tl.load(conv_bias + c, mask=keep, other=0.0).to(mean.dtype)
    tl.store(mean_out + c, mean, mask=keep)
    rstd = 1 / sqrt(var + number(eps, var))
    store_affine(rstd_out, scale_out, bias_out, c, keep, mean, rstd, gamma, beta)


def bn_affine(
    running_mean: Tensor,
    running_var: Tensor,
    gamma: Vector,
    beta: Vector,
    conv_bias: Vector,
    eps: float,
) -> tuple[Tensor, ...]:
    channels = running_mean.numel()
    vectors = {
        "running_mean": running_mean,
        "running_var": running_var,
        "gamma": gamma,
        "beta": beta,
        "conv_bias": conv_bias,
    }
    for name, v in vectors.items():
        check_any_float(v, channels, running_mean, name)
    dtype = stats_dtype(running_mean.dtype)
    out = [torch.empty(channels, dtype=dtype, device=running_mean.device) for _ in range(4)]
    launch(_bn_affine, cdiv(channels, BLOCK), *vectors.values(), *out, channels, eps, BLOCK=BLOCK)
    return tuple(out)
