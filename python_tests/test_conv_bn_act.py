"""conv_bn_act against plain torch: shapes, dtypes, activations, layouts, statistics modes."""

from __future__ import annotations

import inputs
import pytest
import torch
from backends import device
from oracle import compare
from shapes import DTYPE_NAMES, HOSTILE, RESNET, ConvShape

from resnet_kernels import ops

SMALL = ConvShape(3, 6, 7, 9, 8, 3, 3, (1, 1), (1, 1))
DTYPES = list(DTYPE_NAMES)


def layer_tensors(rng, shape, dtype, layout="channels_last", residual=False):
    tensors = {
        "x": inputs.activation(rng, shape.x_size, dtype, layout),
        "weight": inputs.weight(rng, shape, dtype),
        **inputs.bn_tensors(rng, shape.k, dtype),
    }
    if residual:
        tensors["residual"] = inputs.activation(rng, shape.y_size, dtype)
    return tensors


def check(rng, repro, backend, shape, tensors, wanted=None, **kw):
    kw = {**shape.conv_args(), **kw}
    return compare(
        lambda **t: ops.conv_bn_act(**t, **kw, backend=backend),
        lambda plain: lambda **t: plain.conv_bn_act(**t, **kw),
        tensors,
        wanted=inputs.trainable(tensors) if wanted is None else wanted,
        buffers=[n for n in inputs.BUFFERS if tensors.get(n) is not None],
        rng=rng,
        repro=repro,
        reduction_length=shape.reduction_length,
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("act", ops.ACTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES.get)
def test_acts_and_dtypes(dtype, act, residual, training, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, dtype, residual=residual)
    check(rng, repro, backend, SMALL, tensors, act=act, training=training)


@pytest.mark.parametrize("shape", [s.at(1, min(s.h, 7)) for s in RESNET], ids=lambda s: s.id)
def test_resnet_shapes(shape, rng, repro, backend):
    check(rng, repro, backend, shape, layer_tensors(rng, shape, torch.float32), training=True)


# Training on one value a channel is refused: see test_one_value_per_channel.
HOSTILE_CASES = [
    pytest.param(shape, training, id=f"{shape.id}-{'train' if training else 'eval'}")
    for shape in HOSTILE
    for training in (True, False)
    if not training or shape.y_size[0] * shape.y_size[2] * shape.y_size[3] != 1
]


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize(("shape", "training"), HOSTILE_CASES)
def test_hostile_shapes(shape, training, residual, rng, repro, backend):
    tensors = layer_tensors(rng, shape, torch.float32, residual=residual)
    check(rng, repro, backend, shape, tensors, training=training)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("layout", inputs.LAYOUTS)
def test_layouts(layout, training, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32, layout, residual=True)
    z = check(rng, repro, backend, SMALL, tensors, training=training)
    if layout in ("channels_last", "contiguous"):
        expected = getattr(torch, f"{layout}_format" if layout == "contiguous" else layout)
        assert z.is_contiguous(memory_format=expected), f"{z.stride()}\n{repro}"


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_conv_bias(training, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32)
    tensors["conv_bias"] = inputs.normal(rng, SMALL.k)
    wanted = [n for n in inputs.trainable(tensors) if n != "conv_bias" or not training]
    check(rng, repro, backend, SMALL, tensors, wanted, training=training)


def test_conv_bias_gradient_in_training_is_exactly_zero(rng, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32)
    bias = inputs.normal(rng, SMALL.k).requires_grad_()
    z = ops.conv_bn_act(**tensors, conv_bias=bias, training=True, padding=1, backend=backend)
    z.square().sum().backward()
    assert torch.equal(bias.grad, torch.zeros_like(bias))


@pytest.mark.parametrize("absent", [("gamma",), ("beta",), ("gamma", "beta")], ids="-".join)
def test_without_affine(absent, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32) | dict.fromkeys(absent)
    check(rng, repro, backend, SMALL, tensors, training=True)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_without_running_stats_batch_statistics_are_used(training, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32) | dict.fromkeys(inputs.BUFFERS)
    check(rng, repro, backend, SMALL, tensors, training=training)


def test_mean_much_larger_than_deviation(rng, repro, backend):
    shape = ConvShape(4, 4, 16, 16, 4, 1, 1)
    tensors = layer_tensors(rng, shape, torch.float32)
    tensors["x"] = tensors["x"] + 1000
    tensors["weight"] = torch.eye(4, device=device()).view(4, 4, 1, 1)
    check(rng, repro, backend, shape, tensors, ["x"], act="gelu", training=True)


@pytest.mark.parametrize("param_dtype", [torch.float32, torch.bfloat16], ids=DTYPE_NAMES.get)
def test_mixed_parameter_dtypes(param_dtype, rng, repro, backend):
    """bf16 activations with fp32 weights, and with bf16 BN parameters: gradients in their dtype."""
    tensors = layer_tensors(rng, SMALL, torch.bfloat16)
    tensors["weight"] = inputs.weight(rng, SMALL)
    z_params = {n: tensors[n].to(param_dtype) for n in ("gamma", "beta")}
    leaves = {n: v.detach().clone().requires_grad_() for n, v in (tensors | z_params).items()}
    leaves |= {n: tensors[n].clone() for n in inputs.BUFFERS}
    z = ops.conv_bn_act(**leaves, training=True, padding=1, backend=backend)
    z.float().square().sum().backward()
    for name in ("x", "weight", "gamma", "beta"):
        assert leaves[name].grad.dtype == leaves[name].dtype, name

    wide = {n: v.detach().clone().requires_grad_(v.requires_grad) for n, v in leaves.items()}
    wide |= {n: wide[n].detach().float().requires_grad_() for n in ("gamma", "beta")}
    wide |= {n: tensors[n].clone() for n in inputs.BUFFERS}
    expected = ops.conv_bn_act(**wide, training=True, padding=1, backend=backend)
    expected.float().square().sum().backward()
    assert torch.equal(z, expected), repro
    for name in ("x", "weight", "gamma", "beta"):
        assert torch.equal(leaves[name].grad, wide[name].grad.to(leaves[name].dtype)), name


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)], ids=str)
def test_padding_names(padding, kernel, rng, repro, backend):
    shape = ConvShape(2, 5, 8, 9, 6, *kernel)
    tensors = layer_tensors(rng, shape, torch.float32)
    check(rng, repro, backend, shape, tensors, padding=padding, training=True)


def test_one_value_per_channel(rng, repro, backend):
    shape = ConvShape(1, 6, 3, 3, 4, 3, 3)
    tensors = layer_tensors(rng, shape, torch.float32)
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        ops.conv_bn_act(**tensors, training=True, backend=backend)
    check(rng, repro, backend, shape, tensors, training=False)


@pytest.mark.parametrize("frozen", ["x", "weight", "gamma", "beta", "residual"])
def test_gradients_only_where_wanted(frozen, rng, repro, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32, residual=True)
    wanted = [n for n in inputs.trainable(tensors) if n != frozen]
    check(rng, repro, backend, SMALL, tensors, wanted, training=True)
    for only in ([frozen], []):
        for training in (True, False):
            check(rng, repro, backend, SMALL, tensors, only, training=training)


def test_one_layer_used_twice_before_backward(rng, repro, backend):
    shape = ConvShape(2, 4, 6, 6, 4, 3, 3, (1, 1), (1, 1))
    tensors = layer_tensors(rng, shape, torch.float32)

    def twice(op):
        def run(x, **t):
            return op(op(x, **t, padding=1, training=True), **t, padding=1, training=True)

        return run

    compare(
        twice(lambda x, **t: ops.conv_bn_act(x, **t, backend=backend)),
        lambda plain: twice(plain.conv_bn_act),
        tensors,
        wanted=inputs.trainable(tensors),
        buffers=inputs.BUFFERS,
        rng=rng,
        repro=repro,
        reduction_length=shape.reduction_length,
    )


def test_residual_may_be_the_input(rng, repro, backend):
    shape = ConvShape(2, 4, 6, 6, 4, 3, 3, (1, 1), (1, 1))
    tensors = layer_tensors(rng, shape, torch.float32)
    kw = {"padding": 1, "training": True}
    compare(
        lambda x, **t: ops.conv_bn_act(x, **t, residual=x, **kw, backend=backend),
        lambda plain: lambda x, **t: plain.conv_bn_act(x, **t, residual=x, **kw),
        tensors,
        wanted=inputs.trainable(tensors),
        rng=rng,
        repro=repro,
        reduction_length=shape.reduction_length,
    )


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None], ids=str)
def test_running_stats_follow_torch(momentum, rng, repro, backend):
    """A hundred steps, with the batch counter that momentum=None averages by."""
    shape = ConvShape(2, 3, 5, 5, 4, 1, 1)
    weight = inputs.weight(rng, shape)
    bn = torch.nn.BatchNorm2d(4, momentum=momentum).to(device())
    mean, var, tracked = (t.clone() for t in bn.buffers())
    for _ in range(100):
        x = inputs.activation(rng, shape.x_size) * 2 + 1
        bn(torch.nn.functional.conv2d(x, weight))
        ops.conv_bn_act(
            x, weight, None, None, mean, var, num_batches_tracked=tracked, momentum=momentum,
            training=True, backend=backend,
        )  # fmt: skip
    assert tracked.item() == 100
    torch.testing.assert_close(mean, bn.running_mean, rtol=2e-6, atol=2e-6, msg=repro)
    torch.testing.assert_close(var, bn.running_var, rtol=2e-6, atol=2e-6, msg=repro)


def test_two_runs_agree_bit_for_bit(rng, backend):
    tensors = layer_tensors(rng, SMALL, torch.float32, residual=True)
    runs = []
    for _ in range(2):
        leaves = {n: v.clone().requires_grad_(n not in inputs.BUFFERS) for n, v in tensors.items()}
        z = ops.conv_bn_act(**leaves, training=True, padding=1, backend=backend)
        z.square().sum().backward()
        runs.append([z, *(leaves[n].grad for n in inputs.trainable(tensors))])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_what_backward_keeps(rng, backend):
    """Beside its inputs: the convolution's output, a bit mask, vectors; not z, not the residual."""
    tensors = layer_tensors(rng, SMALL, torch.float32, residual=True)
    leaves = {n: v.clone().requires_grad_(n not in inputs.BUFFERS) for n, v in tensors.items()}
    given = {leaves[n].data_ptr() for n in ("x", "weight")}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        z = ops.conv_bn_act(**leaves, training=True, padding=1, backend=backend)
    extra = {t.data_ptr(): t for t in kept if t.data_ptr() not in given}
    large = [t for t in extra.values() if t.numel() > 8 * SMALL.k]
    assert sorted(t.numel() for t in large) == sorted([z.numel(), (z.numel() + 7) // 8])
    assert z.data_ptr() not in extra
    assert leaves["residual"].data_ptr() not in extra
