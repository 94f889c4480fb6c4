"""conv_act against plain torch."""

from __future__ import annotations

import inputs
import pytest
import torch
from oracle import compare
from shapes import DTYPE_NAMES, HOSTILE, ConvShape

from resnet_kernels import ops

SMALL = ConvShape(3, 6, 7, 9, 8, 3, 3, (1, 1), (1, 1))


def layer_tensors(rng, shape, dtype=torch.float32, bias=True, residual=False):
    tensors = {
        "x": inputs.activation(rng, shape.x_size, dtype),
        "weight": inputs.weight(rng, shape, dtype),
    }
    if bias:
        tensors["bias"] = inputs.normal(rng, shape.k, dtype=inputs.vector_dtype(dtype))
    if residual:
        tensors["residual"] = inputs.activation(rng, shape.y_size, dtype)
    return tensors


def check(rng, repro, backend, shape, tensors, **kw):
    kw = {**shape.conv_args(), **kw}
    return compare(
        lambda **t: ops.conv_act(**t, **kw, backend=backend),
        lambda plain: lambda **t: plain.conv_act(**t, **kw),
        tensors,
        wanted=inputs.trainable(tensors),
        rng=rng,
        repro=repro,
        reduction_length=shape.reduction_length,
    )


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("act", ops.ACTS)
@pytest.mark.parametrize("dtype", list(DTYPE_NAMES), ids=DTYPE_NAMES.get)
def test_acts_and_dtypes(dtype, act, bias, residual, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, dtype, bias, residual)
    check(rng, repro, backend, SMALL, tensors, act=act)


@pytest.mark.parametrize("shape", HOSTILE, ids=lambda s: s.id)
def test_hostile_shapes(shape, rng, repro, backend):
    check(rng, repro, backend, shape, layer_tensors(rng, shape, residual=True))


def test_negative_slope_below_zero(rng, repro, backend):
    """The sign of z is then no longer that of its argument."""
    tensors = layer_tensors(rng, SMALL, residual=True)
    check(rng, repro, backend, SMALL, tensors, act="leaky_relu", negative_slope=-0.5)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_names(padding, rng, repro, backend):
    shape = ConvShape(2, 5, 8, 9, 6, 4, 3)
    check(rng, repro, backend, shape, layer_tensors(rng, shape), padding=padding)


def test_inference_agrees_with_training(rng, backend):
    tensors = layer_tensors(rng, SMALL, residual=True)
    for act in ops.ACTS:
        kept = ops.conv_act(
            **tensors | {"x": tensors["x"].clone().requires_grad_()}, act=act, padding=1,
            backend=backend,
        )  # fmt: skip
        plain = ops.conv_act(**tensors, act=act, padding=1, backend=backend)
        torch.testing.assert_close(kept.detach(), plain, rtol=1e-6, atol=1e-6)
