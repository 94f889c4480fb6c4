"""Checks and views of tensors: what memory safety needs. ops/checks.py explains misuse to users.

Messages are those of csrc/torch/tensor.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.acts import ACTS
from ..ops.fakes import stats_dtype

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Vector = Tensor | None


class View(NamedTuple):
    """An activation [N, C, H, W] as [rows / inner, channels, inner], the last index fastest."""

    rows: int
    channels: int
    inner: int
    nhwc: bool


def require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


def _is_dense(t: Tensor, order: Sequence[int]) -> bool:
    expected = 1
    for d in order:
        if t.shape[d] != 1 and t.stride(d) != expected:
            return False
        expected *= t.shape[d]
    return True


def is_channels_last(t: Tensor) -> bool:
    """Whether t's memory reads as [N, H, W, C]."""
    return t.numel() == 0 or _is_dense(t, (1, 3, 2, 0))


def is_contiguous(t: Tensor) -> bool:
    """Whether t's memory reads as [N, C, H, W]."""
    return _is_dense(t, (3, 2, 1, 0))


def view_of(t: Tensor, name: str) -> View:
    require(t.dtype in FLOATS, f"{name}: expected float32, float64, float16 or bfloat16")
    require(t.dim() == 4, f"{name}: expected 4 dimensions [N, C, H, W], got {t.dim()}")
    n, c, h, w = t.shape
    if is_channels_last(t):
        return View(n * h * w, c, 1, True)
    require(is_contiguous(t), f"{name}: expected dense channels_last or contiguous memory")
    return View(n * h * w, c, h * w, False)


def check_layout(t: Tensor, like: Tensor, name: str) -> None:
    """t has the device, shape and memory layout of `like`."""
    require(t.device == like.device, f"{name}: device differs")
    require(
        t.shape == like.shape,
        f"{name}: expected size {list(like.shape)}, got {list(t.shape)}",
    )
    pairs = zip(t.shape, t.stride(), like.stride(), strict=True)
    require(
        t.numel() == 0 or all(n == 1 or a == b for n, a, b in pairs),
        f"{name}: memory layout differs",
    )


def check_same(t: Tensor, like: Tensor, name: str) -> None:
    """The same, and its dtype."""
    require(t.dtype == like.dtype, f"{name}: dtype differs")
    check_layout(t, like, name)


def check_vectors(like: Tensor, channels: int, **vectors: Vector) -> None:
    """Each is [channels], contiguous, in the dtype of statistics that go with `like`."""
    dtype = stats_dtype(like.dtype)
    for name, v in vectors.items():
        if v is None:
            continue
        require(
            v.numel() == channels and v.is_contiguous(),
            f"{name}: expected {channels} contiguous values, got {v.numel()}",
        )
        require(v.dtype == dtype, f"{name}: expected the dtype of the statistics")
        require(v.device == like.device, f"{name}: device differs")


def check_mask(mask: Vector, like: Tensor) -> None:
    """One bit for each element of `like`."""
    if mask is None:
        return
    bytes_ = (like.numel() + 7) // 8
    require(
        mask.dtype == torch.uint8 and mask.is_contiguous() and mask.numel() == bytes_,
        f"mask: expected one contiguous bit per element, got {mask.numel()} bytes",
    )
    require(mask.device == like.device, "mask: device differs")


def check_act(act: int) -> None:
    require(0 <= act < len(ACTS), f"act: unknown value {act}")


def both_or_none(a: Vector, b: Vector, names: str) -> None:
    require((a is None) == (b is None), f"{names}: give both or none")


def stats_like(t: Tensor, *size: int) -> Tensor:
    """Uninitialised [size] in the dtype of statistics."""
    return torch.empty(size, dtype=stats_dtype(t.dtype), device=t.device)


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def power_of_2(n: int, least: int, most: int) -> int:
    """The smallest power of two that is at least n, between `least` and `most` (powers of two)."""
    return min(max(1 << max(n - 1, 0).bit_length(), least), most)
