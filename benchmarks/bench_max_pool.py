"""max_pool_fwd and _bwd (3x3, stride 2) against torch's, whose indices take 8 bytes each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Case, activation, main

ops = torch.ops.resnet_kernels
WINDOW = ([3, 3], [2, 2], [1, 1], [1, 1])


def fwd(x: Tensor) -> Tensor:
    return ops.max_pool_fwd(x, None, None, 0, 0.0, *WINDOW, False)[0]


def torch_fwd(x: Tensor) -> Tensor:
    return F.max_pool2d_with_indices(x, *WINDOW, False)[0]


def cases(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Iterator[Case]:
    x = activation(shape, dtype)
    z, taps = ops.max_pool_fwd(x, None, None, 0, 0.0, *WINDOW, False)
    places = F.max_pool2d_with_indices(x, *WINDOW, False)[1]
    dz = activation(tuple(z.shape), dtype, seed=2)

    def bwd(dz: Tensor, x: Tensor) -> Tensor:
        return ops.max_pool_bwd(dz, taps, shape, *WINDOW)

    def torch_bwd(dz: Tensor, x: Tensor) -> Tensor:
        return torch.ops.aten.max_pool2d_with_indices_backward(dz, x, *WINDOW, False, places)

    yield Case("max_pool_fwd", (x,), fwd, torch_fwd, passes=1.25)
    yield Case("max_pool_bwd", (dz, x), bwd, torch_bwd, passes=5)  # of dz, a quarter of x


if __name__ == "__main__":
    main("max_pool", cases)
