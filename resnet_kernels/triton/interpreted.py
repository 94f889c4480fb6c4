"""What precise.py has, for kernels that run on numpy: plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import TensorHandle


def _elementwise(function: Callable[[torch.Tensor], torch.Tensor], x: tl.tensor) -> tl.tensor:
    """function in fp64, rounded to x's dtype."""
    data: Any = x.handle.data
    value = function(torch.from_numpy(data).double()).numpy().astype(data.dtype)
    return tl.tensor(TensorHandle(value, x.dtype.scalar), x.type)


def _tensor(data: Any, dtype: tl.dtype) -> tl.tensor:
    shape = list(data.shape)
    return tl.tensor(TensorHandle(data, dtype), tl.block_type(dtype, shape) if shape else dtype)


def round_to(x: tl.tensor, dtype: tl.dtype) -> tl.tensor:
    """Nearest even; the interpreter itself cuts bf16 off."""
    if dtype != tl.bfloat16 or x.dtype == tl.bfloat16:
        return x.to(dtype)
    bits = torch.from_numpy(x.to(tl.float32).handle.data).bfloat16().view(torch.int16)
    return _tensor(bits.numpy().view(np.uint16), dtype)


def up(x: tl.tensor) -> tl.tensor:
    """Exact; the interpreter itself moves bf16's subnormal values."""
    if x.dtype == tl.bfloat16:
        data: Any = x.handle.data
        return _tensor((data.astype(np.uint32) << 16).view(np.float32), tl.float32)
    return x if x.dtype == tl.float64 else x.to(tl.float32)


def sum_along(x: tl.tensor, axis: Any) -> tl.tensor:
    """As exact as the tree of a GPU; the interpreter adds the values one after another."""
    data: Any = x.handle.data
    summed = data.sum(axis=getattr(axis, "value", axis), dtype=np.float64)
    return _tensor(np.asarray(summed).astype(data.dtype), x.dtype.scalar)


def exp(x: tl.tensor) -> tl.tensor:
    return _elementwise(torch.exp, x)


def normal_cdf(t: tl.tensor) -> tl.tensor:
    return _elementwise(lambda v: torch.special.erfc(v * -(0.5**0.5)) / 2, t)
