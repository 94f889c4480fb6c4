"""Argument checks of the public ops: errors name the argument, what was expected, what came."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Pair = tuple[int, int]
# Strides, paddings and the like beyond it would overflow an image's size.
_MAX_INTEGER = 2**31 - 1


def tensor(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(value).__name__}")
    return value


def activation(x: Any, name: str) -> None:
    """x is a dense-able [N, C, H, W] of a supported dtype."""
    tensor(x, name)
    if x.dtype not in DTYPES:
        raise TypeError(f"{name}: expected float32, bfloat16, float16 or float64, got {x.dtype}")
    if x.dim() != 4:
        raise ValueError(f"{name}: expected 4 dimensions [N, C, H, W], got shape {list(x.shape)}")
    strided(x, name)


def strided(value: Tensor, name: str) -> None:
    if value.layout is not torch.strided:
        raise TypeError(f"{name}: expected a strided (dense) tensor, got layout {value.layout}")


def same_device(value: Tensor, x: Tensor, name: str) -> None:
    if value.device != x.device:
        raise ValueError(f"{name}: expected device {x.device}, got {value.device}")


def residual(value: Any, x: Tensor, size: Sequence[int], name: str = "residual") -> None:
    """value has x's dtype and device and exactly the output's size; nothing is broadcast."""
    tensor(value, name)
    if tuple(value.shape) != tuple(size):
        raise ValueError(f"{name}: expected shape {list(size)}, got {list(value.shape)}")
    if value.dtype != x.dtype:
        raise TypeError(f"{name}: expected dtype {x.dtype}, got {value.dtype}")
    same_device(value, x, name)


def vector(value: Any, channels: int, x: Tensor, name: str) -> None:
    """value is None or a dense [channels] of a floating dtype on x's device."""
    if value is None or (
        isinstance(value, Tensor)
        and value.shape == (channels,)
        and value.dtype.is_floating_point
        and value.device == x.device
        and value.layout is torch.strided
    ):
        return
    tensor(value, name)
    strided(value, name)
    if not value.dtype.is_floating_point:
        raise TypeError(f"{name}: expected a floating dtype, got {value.dtype}")
    if value.dim() != 1 or value.shape[0] != channels:
        raise ValueError(f"{name}: expected shape [{channels}], got {list(value.shape)}")
    same_device(value, x, name)


def real(value: Any, name: str, minimum: float | None = None) -> float:
    if type(value) is not float and (
        isinstance(value, bool) or not isinstance(value, numbers.Real)
    ):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    number = float(value)
    if minimum is not None and not number >= minimum:
        raise ValueError(f"{name}: expected at least {minimum:g}, got {value}")
    return number


def batch_norm(bn: Any, channels: int, x: Tensor) -> None:
    """bn: a bundle with the fields of BN; channels: those of the normalised activation."""
    for name in ("gamma", "beta", "running_mean", "running_var"):
        vector(getattr(bn, name), channels, x, name)
    if (bn.running_mean is None) != (bn.running_var is None):
        given, missing = ("running_mean", "running_var")
        if bn.running_mean is None:
            given, missing = missing, given
        raise ValueError(f"{missing}: expected a Tensor since {given} is given, got None")
    tracked = bn.num_batches_tracked
    if tracked is not None:
        tensor(tracked, "num_batches_tracked")
        if tracked.dtype != torch.int64:
            raise TypeError(f"num_batches_tracked: expected dtype int64, got {tracked.dtype}")
        if tracked.numel() != 1:
            raise ValueError(
                f"num_batches_tracked: expected one element, got shape {list(tracked.shape)}"
            )
        same_device(tracked, x, "num_batches_tracked")
    if bn.momentum is not None:
        real(bn.momentum, "momentum")
    if real(bn.eps, "eps", 0.0) == 0 and bn.training:
        raise ValueError(f"eps: expected more than 0 in training, got {bn.eps}")
    if not isinstance(bn.training, bool):
        raise TypeError(f"training: expected a bool, got {bn.training!r}")
    if bn.training:
        _updated_in_place(bn)
    if bn.process_group is not None:
        _process_group(bn.process_group)


def _updated_in_place(bn: Any) -> None:
    for name in ("running_mean", "running_var"):
        value = getattr(bn, name)
        if value is not None and not value.is_contiguous():
            raise ValueError(
                f"{name}: expected contiguous memory in training, got strides {value.stride()}"
            )


def _process_group(group: Any) -> None:
    distributed = torch.distributed
    if not distributed.is_available() or not isinstance(group, distributed.ProcessGroup):
        raise TypeError(
            "process_group: expected a torch.distributed.ProcessGroup or None, got "
            f"{type(group).__name__}"
        )


def more_than_one_value(size: Sequence[int]) -> None:
    """Batch statistics of one value a channel are undefined; same message as torch."""
    if size[0] * size[2] * size[3] == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got input size "
            f"{torch.Size(size)}"
        )


def _integer(value: Any, name: str, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    if value > _MAX_INTEGER:
        raise ValueError(f"{name}: expected at most {_MAX_INTEGER}, got {value}")
    return value  # type: ignore[return-value]


def pair(value: Any, name: str, minimum: int) -> Pair:
    """An int or two ints (height, width), as a tuple of two."""
    if type(value) is tuple and len(value) == 2:
        first, second = value
        plain = type(first) is int and type(second) is int
        if plain and min(value) >= minimum and max(value) <= _MAX_INTEGER:
            return value
    elif type(value) is int and minimum <= value <= _MAX_INTEGER:
        return value, value
    if isinstance(value, (list, tuple)):
        if len(value) == 1:
            value = (value[0], value[0])
        if len(value) != 2:
            raise ValueError(f"{name}: expected an int or two ints, got {value!r}")
        return _integer(value[0], name, minimum), _integer(value[1], name, minimum)
    return (_integer(value, name, minimum),) * 2


def weight(w: Any, size: Sequence[int], x: Tensor, groups: Any, name: str = "weight") -> None:
    """w is [K, C / groups, R, S] for an input of `size` [N, C, H, W] on x's device."""
    tensor(w, name)
    strided(w, name)
    if not w.dtype.is_floating_point:
        raise TypeError(f"{name}: expected a floating dtype, got {w.dtype}")
    if w.dim() != 4:
        raise ValueError(f"{name}: expected 4 dimensions [K, C/groups, R, S], got {list(w.shape)}")
    if 0 in (w.shape[0], *w.shape[2:]):
        raise ValueError(f"{name}: expected at least one filter and tap, got {list(w.shape)}")
    _integer(groups, "groups", 1)
    channels = size[1]
    if w.shape[0] % groups or channels % groups:
        raise ValueError(
            f"groups: expected a divisor of {channels} input and {w.shape[0]} output channels, "
            f"got {groups}"
        )
    if w.shape[1] * groups != channels:
        raise ValueError(
            f"{name}: expected {channels // groups} channels (dimension 1) for an input of "
            f"{channels} channels in {groups} groups, got {w.shape[1]}"
        )
    same_device(w, x, name)


def padding(value: Any, w: Tensor, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """(padding on both sides, extra at the bottom and right) from ints, "valid" or "same"."""
    if not isinstance(value, str):
        return pair(value, "padding", 0), (0, 0)
    if value == "valid":
        return (0, 0), (0, 0)
    if value != "same":
        raise ValueError(f"padding: expected ints, 'valid' or 'same', got {value!r}")
    if stride != (1, 1):
        raise ValueError(f"padding: expected ints with stride {stride}, got 'same'")
    total = [dilation[i] * (w.shape[i + 2] - 1) for i in range(2)]
    return (total[0] // 2, total[1] // 2), (total[0] % 2, total[1] % 2)


def image_covers_kernel(size: Sequence[int], name: str) -> None:
    """The output size of a convolution or pooling is at least 1 x 1."""
    if size[2] < 1 or size[3] < 1:
        raise ValueError(
            f"{name}: expected an image no smaller than the kernel, got output size {list(size)}"
        )


def pool_padding(padding: Pair, kernel: Sequence[int]) -> None:
    """Every window meets the image: the padding is at most half the kernel, as in torch."""
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError(
            f"padding: expected at most half the kernel {tuple(kernel)}, got {tuple(padding)}"
        )
