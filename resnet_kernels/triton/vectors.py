"""What the ops on per-channel vectors share."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .tensors import FLOATS, Vector, require

# Channels of a program. The vectors are short: more programs, not longer ones, hide the latency.
BLOCK = 128


def check_any_float(v: Vector, channels: int, like: Tensor, name: str) -> None:
    """v is [channels], contiguous, of any floating dtype."""
    if v is None:
        return
    require(
        v.numel() == channels and v.is_contiguous(),
        f"{name}: expected {channels} contiguous values, got {v.numel()}",
    )
    require(v.dtype in FLOATS, f"{name}: expected float32, float64, float16 or bfloat16")
    require(v.device == like.device, f"{name}: device differs")


@triton.jit
def sqrt(x):
    """Rounded correctly; tl.sqrt of fp32 is not."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def store_affine(rstd_out, scale_out, bias_out, c, keep, mean, rstd, gamma, beta):
    """rstd; scale = gamma * rstd; bias = beta - mean * scale."""
    scale = rstd
    if gamma is not None:
        scale = tl.load(gamma + c, mask=keep, other=0.0).to(rstd.dtype) * rstd
    bias = -mean * scale
    if beta is not None:
        bias += tl.load(beta + c, mask=keep, other=0.0).to(rstd.dtype)
    tl.store(rstd_out + c, rstd, mask=keep)
    tl.store(scale_out + c, scale, mask=keep)
    tl.store(bias_out + c, bias, mask=keep)
