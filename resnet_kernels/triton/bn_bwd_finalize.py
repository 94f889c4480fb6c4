"""bn_bwd_finalize: sums [2, K], gamma, rstd [K], count [1] -> A, B, C of bn_bwd_apply [3, K]."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch
from .tensors import Vector, cdiv, check_vectors, require
from .vectors import BLOCK, check_any_float


@triton.jit(do_not_specialize=["K"])
def _bn_bwd_finalize(sums, gamma, rstd, count, abc, K, BLOCK: tl.constexpr):
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = c < K
    r = tl.load(rstd + c, mask=keep, other=0.0)
    m = tl.maximum(tl.load(count), 1.0)
    a = r
    if gamma is not None:
        a *= tl.load(gamma + c, mask=keep, other=0.0).to(r.dtype)
    tl.store(abc + c, a, mask=keep)
    tl.store(abc + K + c, -a * r * tl.load(sums + K + c, mask=keep, other=0.0) / m, mask=keep)
    tl.store(abc + 2 * K + c, -a * tl.load(sums + c, mask=keep, other=0.0) / m, mask=keep)


def bn_bwd_finalize(sums: Tensor, gamma: Vector, rstd: Tensor, count: Tensor) -> Tensor:
    require(
        sums.dim() == 2 and sums.shape[0] == 2 and sums.is_contiguous(),
        "sums: expected contiguous [2, K]",
    )
    require(sums.dtype in (torch.float32, torch.float64), "sums: expected float32 or float64")
    channels = sums.shape[1]
    check_any_float(gamma, channels, sums, "gamma")
    check_vectors(sums, channels, rstd=rstd)
    check_vectors(sums, 1, count=count)
    abc = sums.new_empty((3, channels))
    args = (sums, gamma, rstd, count, abc, channels)
    launch(_bn_bwd_finalize, cdiv(channels, BLOCK), *args, BLOCK=BLOCK)
    return abc
