"""bn_act_fwd against plain torch: scale and bias, optional residual, relu, in one pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Case, activation, main, vectors

ops = torch.ops.resnet_kernels
RELU = 1


def _torch_bn(y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    # With mean 0, variance 1 and eps 0, eval-mode batch norm is the affine map.
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    return F.batch_norm(y, zero, one, scale, bias, training=False, eps=0.0)


def plain(y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return ops.bn_act_fwd(y, scale, bias, None, None, None, RELU, 0.0)


def torch_plain(y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _torch_bn(y, scale, bias).relu_()


def residual(y: Tensor, skip: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return ops.bn_act_fwd_mask(y, scale, bias, skip, None, None, RELU, 0.0)[0]


def torch_residual(y: Tensor, skip: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _torch_bn(y, scale, bias).add_(skip).relu_()


def cases(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Iterator[Case]:
    y, skip = activation(shape, dtype), activation(shape, dtype, seed=2)
    scale, bias = vectors(shape[1], 2)
    yield Case("bn_act_fwd", (y, scale, bias), plain, torch_plain, passes=2)
    yield Case("bn_act_fwd_mask", (y, skip, scale, bias), residual, torch_residual, passes=3)


if __name__ == "__main__":
    main("bn_act_fwd", cases)
