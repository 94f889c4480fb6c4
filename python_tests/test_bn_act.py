"""bn_act against plain torch."""

from __future__ import annotations

import inputs
import pytest
import torch
from oracle import compare
from shapes import ACTIVATIONS, DTYPE_NAMES, size_id

from resnet_kernels import ops


def check(rng, repro, backend, tensors, wanted=None, **kw):
    return compare(
        lambda y, **t: ops.bn_act(y, **t, **kw, backend=backend),
        lambda plain: lambda y, **t: plain.bn_act(y, **t, **kw),
        tensors,
        wanted=inputs.trainable(tensors) if wanted is None else wanted,
        buffers=[n for n in inputs.BUFFERS if tensors.get(n) is not None],
        rng=rng,
        repro=repro,
        reduction_length=1,
    )


def layer_tensors(rng, size, dtype=torch.float32, layout="channels_last", residual=False):
    tensors = {"y": inputs.activation(rng, size, dtype, layout)}
    tensors |= inputs.bn_tensors(rng, size[1], dtype)
    if residual:
        tensors["residual"] = inputs.activation(rng, size, dtype)
    return tensors


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("act", ops.ACTS)
@pytest.mark.parametrize("dtype", list(DTYPE_NAMES), ids=DTYPE_NAMES.get)
def test_acts_and_dtypes(dtype, act, residual, training, rng, repro, backend):
    tensors = layer_tensors(rng, (3, 10, 7, 5), dtype, residual=residual)
    check(rng, repro, backend, tensors, act=act, training=training)


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("size", ACTIVATIONS, ids=size_id)
def test_sizes(size, training, residual, rng, repro, backend):
    check(rng, repro, backend, layer_tensors(rng, size, residual=residual), training=training)


@pytest.mark.parametrize("layout", inputs.LAYOUTS)
def test_layouts(layout, rng, repro, backend):
    tensors = layer_tensors(rng, (3, 10, 7, 5), layout=layout, residual=True)
    z = check(rng, repro, backend, tensors, training=True)
    if layout == "contiguous":
        assert z.is_contiguous()
    if layout == "channels_last":
        assert z.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("eps, training", [(1e-3, True), (1e-3, False), (1e-30, False)])
def test_eps(eps, training, rng, repro, backend):
    check(rng, repro, backend, layer_tensors(rng, (3, 4, 5, 5)), training=training, eps=eps)


def test_no_eps(rng, backend):
    """Older torch refuses it."""
    tensors = layer_tensors(rng, (3, 4, 5, 5))
    none, least = (ops.bn_act(**tensors, eps=eps, backend=backend) for eps in (0.0, 1e-30))
    assert torch.equal(none, least)


def test_one_value_per_channel(rng, repro, backend):
    tensors = layer_tensors(rng, (1, 4, 1, 1))
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        ops.bn_act(**tensors, training=True, backend=backend)
    check(rng, repro, backend, tensors, training=False)


def test_expanded_upstream_gradient(rng, backend):
    """sum().backward() hands over a gradient of stride 0."""
    tensors = layer_tensors(rng, (3, 10, 7, 5), residual=True)
    grads = []
    for expand in (True, False):
        y = tensors["y"].clone().requires_grad_()
        z = ops.bn_act(**tensors | {"y": y}, act="gelu", training=False, backend=backend)
        dz = z.new_ones(1).expand(z.shape)
        z.backward(dz if expand else dz.contiguous())
        grads.append(y.grad)
    assert torch.equal(*grads)
