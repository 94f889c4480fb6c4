"""Backward of training batch norm and relu: reduce, finalize, apply against torch's two ops."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Case, activation, main, vectors

ops = torch.ops.resnet_kernels
RELU = 1
EPS = 1e-5


def ours(dz: Tensor, y: Tensor, z: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    scale = gamma * rstd
    bias = -mean * scale  # beta is 0
    sums = ops.bn_act_bwd_reduce(dz, y, mean, rstd, scale, bias, RELU, 0.0)
    count = torch.full((1,), y.numel() / y.shape[1])
    abc = ops.bn_bwd_finalize(sums, gamma, rstd, count)
    return ops.bn_bwd_apply(dz, y, mean, abc, scale, bias, RELU, 0.0)


def theirs(dz: Tensor, y: Tensor, z: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    g = torch.ops.aten.threshold_backward(dz, z, 0)
    return torch.ops.aten.native_batch_norm_backward(
        g, y, gamma, None, None, mean, rstd, True, EPS, [True, True, True]
    )[0]


def cases(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Iterator[Case]:
    y, dz = activation(shape, dtype), activation(shape, dtype, seed=2)
    (gamma,) = vectors(shape[1], 1)
    variance, mean = torch.var_mean(y.float(), (0, 2, 3), correction=0)
    rstd = (variance + EPS).rsqrt()
    scale = (gamma * rstd)[:, None, None]
    z = ((y.float() - mean[:, None, None]) * scale).relu().to(dtype)
    # Twice: reduce reads dz and y; apply reads them again and writes dy.
    yield Case("bn_act_bwd", (dz, y, z, gamma, mean, rstd), ours, theirs, passes=5)


if __name__ == "__main__":
    main("bn_act backward", cases)
