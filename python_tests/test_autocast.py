"""Autocast: convolutions run in its dtype, BN parameters and statistics stay fp32."""

from __future__ import annotations

import public_ops
import pytest
import torch
from backends import device

from resnet_kernels import ops
from resnet_kernels.ops import layers

CONVOLUTIONS = [n for n in public_ops.CALLS if not n.startswith(("bn_act", "max", "avg"))]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_same_as_casting_by_hand(name, training, rng, backend):
    tensors = public_ops.tensors_for(rng)
    results = []
    for autocast in (True, False):
        t = public_ops.leaves(tensors)
        own = t if autocast else t | {n: t[n].bfloat16() for n in ("x", "x2")}
        with torch.autocast(device().type, torch.bfloat16, enabled=autocast):
            z = public_ops.CALLS[name](own, training, act="relu", backend=backend)
        assert z.dtype == torch.bfloat16
        z.float().square().sum().backward()
        results.append([z, *(v.grad if v.requires_grad else v for v in t.values())])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b))


def test_backward_inside_autocast(rng, backend):
    tensors = public_ops.tensors_for(rng)
    grads = []
    for inside in (True, False):
        t = public_ops.leaves(tensors)
        with torch.autocast(device().type, torch.bfloat16):
            z = public_ops.CALLS["residual_block"](t, True, act="relu", backend=backend)
            if inside:
                z.backward(torch.ones_like(z))
        if not inside:
            z.backward(torch.ones_like(z))
        grads.append([t[n].grad for n in ("x", "weight_0", "gamma_1")])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_ops_without_convolution_keep_their_dtype(rng, backend):
    t = public_ops.tensors_for(rng)
    with torch.autocast(device().type, torch.bfloat16):
        z = ops.bn_act(t["x"], residual=t["x2"].bfloat16(), training=True, backend=backend)
        assert z.dtype == ops.max_pool(t["x"], 2, backend=backend).dtype == torch.float32
    assert torch.equal(
        z, ops.bn_act(t["x"], residual=t["x2"].bfloat16().float(), training=True, backend=backend)
    )


def test_fp64_is_left_alone(rng, backend):
    t = public_ops.tensors_for(rng, torch.float64)
    with torch.autocast(device().type, torch.bfloat16):
        z = public_ops.CALLS["conv_bn_act"](t, False, act="relu", backend=backend)
    assert z.dtype == torch.float64


def test_ops_run_outside_autocast():
    """Plain-torch parts of an op must not be cast a second time."""
    inside = layers.autocasts(
        lambda x, residual: (torch.is_autocast_enabled(device().type), x, residual)
    )
    x = torch.ones(1)
    with torch.autocast(device().type, torch.bfloat16):
        enabled, cast, residual = inside(x, residual=x)
        assert torch.is_autocast_enabled(device().type)
    assert not enabled
    assert cast.dtype == torch.bfloat16
    assert residual is cast
