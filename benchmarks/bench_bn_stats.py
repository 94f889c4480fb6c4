"""bn_stats against torch.var_mean: one read of y."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Case, activation, main

ops = torch.ops.resnet_kernels


def ours(y: Tensor) -> Tensor:
    return ops.bn_stats(y)[1:]


def theirs(y: Tensor) -> Tensor:
    wide = y if y.dtype == torch.float64 else y.float()
    variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    return torch.stack([mean, variance * (y.numel() // y.shape[1])])


def cases(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Iterator[Case]:
    yield Case("bn_stats", (activation(shape, dtype),), ours, theirs, passes=1)


if __name__ == "__main__":
    main("bn_stats", cases)
