"""Which kernel a convolution takes on the CPU, known in advance; conv_serves.cpp decides."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

WINOGRAD = "Winograd F(2x2, 3x3)"
DIRECT = "direct"
TORCH = "declared torch convolution"

# Below these the transforms cost more than the products save.
_WINOGRAD_CHANNELS = 16


def cpu_conv_kernel(
    weight_size: Sequence[int],
    dtype: torch.dtype,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> str:
    """WINOGRAD, DIRECT or TORCH for channels_last activations of `dtype`.

    weight_size: [K, C / groups, R, S].
    """
    choice = os.environ.get("RNK_CPU_CONV", "auto")
    if dtype != torch.float32 or choice == "torch" or (groups > 1 and choice != "own"):
        return TORCH
    channels = min(weight_size[:2])
    plain = groups == 1 and {*stride, *dilation} == {1} and max(padding) <= 2
    if plain and tuple(weight_size[2:]) == (3, 3) and channels >= _WINOGRAD_CHANNELS:
        return WINOGRAD
    return DIRECT


def own_cpu_convolution(x: Tensor) -> bool:
    """Whether convolutions of an activation like x run on our CPU kernels."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous(memory_format=torch.channels_last)
    )
