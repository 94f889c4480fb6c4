"""max_pool and avg_pool against plain torch."""

from __future__ import annotations

import inputs
import pytest
import torch
import torch.nn.functional as F
from backends import device
from oracle import compare
from shapes import ACTIVATIONS, DTYPE_NAMES, size_id

from resnet_kernels import ops

# kernel, stride, padding, dilation, ceil_mode
MAX_CASES = [
    (3, 2, 1, 1, False),
    (2, None, 0, 1, False),
    (3, 2, 1, 1, True),
    ((3, 2), (1, 3), (1, 0), 1, True),
    (2, 1, 1, 2, False),
    (1, 1, 0, 1, False),
    (2, 3, 0, 1, True),
]
# kernel, stride, padding, ceil_mode, count_include_pad
AVG_CASES = [
    (3, 2, 1, False, True),
    (3, 2, 1, True, False),
    (2, None, 0, False, True),
    ((3, 2), (1, 3), (1, 0), True, True),
    (7, None, 0, False, True),
]


def check(rng, repro, op, plain, x, length):
    return compare(
        op, lambda _: plain, {"x": x}, wanted=["x"], rng=rng, repro=repro, reduction_length=length
    )


@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "sliced"])
@pytest.mark.parametrize("args", MAX_CASES, ids=str)
def test_max_pool(args, layout, rng, repro, backend):
    x = inputs.activation(rng, (2, 5, 9, 8), layout=layout)
    kernel, stride, padding, dilation, ceil_mode = args
    z = check(
        rng,
        repro,
        lambda x: ops.max_pool(x, *args, backend=backend),
        lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode),
        x,
        4,
    )
    assert torch.equal(z.detach(), F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode))


@pytest.mark.parametrize("dtype", list(DTYPE_NAMES), ids=DTYPE_NAMES.get)
def test_max_pool_ties_and_nan(dtype, rng, repro, backend):
    """Small integers tie in most windows: the first maximum takes the gradient, as in torch."""
    x = torch.randint(-1, 2, (2, 3, 8, 8), generator=rng).to(device(), dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    z, expected = ops.max_pool(ours, 3, 2, 1, backend=backend), F.max_pool2d(theirs, 3, 2, 1)
    dz = torch.randint(-4, 5, z.shape, generator=rng).to(z)
    z.backward(dz)
    expected.backward(dz)
    assert torch.equal(z, expected), repro
    assert torch.equal(ours.grad, theirs.grad), repro

    x[0, 0, 4, 4] = float("nan")
    z = ops.max_pool(x, 3, 2, 1, backend=backend)
    assert torch.equal(z.isnan(), F.max_pool2d(x, 3, 2, 1).isnan())


@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "sliced"])
@pytest.mark.parametrize("args", AVG_CASES, ids=str)
def test_avg_pool(args, layout, rng, repro, backend):
    x = inputs.activation(rng, (2, 5, 9, 8), layout=layout)
    check(
        rng,
        repro,
        lambda x: ops.avg_pool(x, *args, backend=backend),
        lambda x: F.avg_pool2d(x, *args),
        x,
        49,
    )


@pytest.mark.parametrize("size", ACTIVATIONS, ids=size_id)
@pytest.mark.parametrize("dtype", list(DTYPE_NAMES), ids=DTYPE_NAMES.get)
def test_global_avg_pool(dtype, size, rng, repro, backend):
    x = inputs.activation(rng, size, dtype)
    length = size[2] * size[3]
    z = check(
        rng,
        repro,
        lambda x: ops.avg_pool(x, backend=backend),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        x,
        length,
    )
    assert z.shape == (*size[:2], 1, 1)
