"""Wrong arguments raise errors that name the argument, before anything is written."""

from __future__ import annotations

import pytest
import torch

from resnet_kernels import ops


def arguments():
    return {
        "x": torch.randn(2, 4, 6, 6),
        "weight": torch.randn(8, 4, 3, 3),
        "gamma": torch.ones(8),
        "beta": torch.zeros(8),
        "running_mean": torch.zeros(8),
        "running_var": torch.ones(8),
        "num_batches_tracked": torch.tensor(0),
    }


BAD_ARGUMENTS = [
    ({"x": None}, TypeError, "x: expected a Tensor"),
    ({"x": [1.0]}, TypeError, "x: expected a Tensor"),
    ({"x": torch.randn(4, 6, 6)}, ValueError, r"x: expected 4 dimensions .* got shape \[4, 6, 6\]"),
    ({"x": torch.randn(1, 2, 4, 6, 6)}, ValueError, "x: expected 4 dimensions"),
    ({"x": torch.ones(2, 4, 6, 6, dtype=torch.int64)}, TypeError, "x: .*got torch.int64"),
    ({"x": torch.ones(2, 4, 6, 6, dtype=torch.complex64)}, TypeError, "x: .*complex64"),
    ({"x": torch.randn(2, 4, 6, 6, device="meta")}, ValueError, "weight: expected device meta"),
    ({"x": torch.randn(2, 5, 6, 6)}, ValueError, "weight: expected 5 channels"),
    ({"x": torch.randn(2, 4, 2, 6)}, ValueError, "weight: expected an image no smaller"),
    ({"weight": torch.randn(8, 4, 3)}, ValueError, "weight: expected 4 dimensions"),
    ({"weight": torch.ones(8, 4, 3, 3).int()}, TypeError, "weight: .*got torch.int32"),
    ({"weight": "w"}, TypeError, "weight: expected a Tensor, got str"),
    ({"weight": torch.randn(0, 4, 3, 3)}, ValueError, "weight: expected at least one filter"),
    ({"weight": torch.randn(8, 4, 0, 3)}, ValueError, "weight: expected at least one filter"),
    ({"weight": torch.randn(8, 4, 3, 3).to_sparse()}, TypeError, "weight: expected a strided"),
    ({"x": torch.randn(2, 4, 6, 6).to_sparse()}, TypeError, "x: expected a strided"),
    ({"beta": torch.ones(8).to_sparse()}, TypeError, "beta: expected a strided"),
    ({"gamma": torch.ones(7)}, ValueError, r"gamma: expected shape \[8\], got \[7\]"),
    ({"beta": torch.ones(1, 8)}, ValueError, "beta: expected shape"),
    ({"beta": torch.ones(8).int()}, TypeError, "beta: expected a floating dtype"),
    ({"gamma": 1.0}, TypeError, "gamma: expected a Tensor, got float"),
    ({"conv_bias": torch.ones(4)}, ValueError, "conv_bias: expected shape"),
    ({"running_mean": None}, ValueError, "running_mean: expected a Tensor"),
    ({"running_var": None}, ValueError, "running_var: expected a Tensor"),
    ({"running_mean": torch.zeros(16)[::2]}, ValueError, "running_mean: expected contiguous"),
    ({"running_var": torch.ones(1).expand(8)}, ValueError, "running_var: expected contiguous"),
    ({"running_var": torch.ones(9)}, ValueError, "running_var: expected shape"),
    ({"num_batches_tracked": torch.tensor(0.0)}, TypeError, "num_batches_tracked: .*int64"),
    ({"num_batches_tracked": 0}, TypeError, "num_batches_tracked: expected a Tensor"),
    ({"num_batches_tracked": torch.zeros(2).long()}, ValueError, "num_batches_tracked: .*one"),
    ({"residual": torch.randn(2, 8, 4, 5)}, ValueError, "residual: expected shape"),
    ({"residual": torch.randn(8, 1, 1)}, ValueError, "residual: expected shape"),
    ({"residual": torch.randn(2, 8, 4, 4).half()}, TypeError, "residual: .*float32, got .*16"),
    ({"residual": 1}, TypeError, "residual: expected a Tensor"),
    ({"act": "tanh"}, ValueError, "act: expected one of identity, relu.*got 'tanh'"),
    ({"act": 1}, ValueError, "act: expected one of"),
    ({"act": ["relu"]}, ValueError, "act: expected one of"),
    ({"negative_slope": "0.1"}, TypeError, "negative_slope: expected a number"),
    ({"stride": -1}, ValueError, "stride: expected at least 1, got -1"),
    ({"stride": 0}, ValueError, "stride: expected at least 1"),
    ({"stride": 1.5}, TypeError, "stride: expected an int"),
    ({"stride": (1, 1, 1)}, ValueError, "stride: expected an int or two ints"),
    ({"stride": "same"}, TypeError, "stride: expected an int"),
    ({"stride": True}, TypeError, "stride: expected an int"),
    ({"padding": -1}, ValueError, "padding: expected at least 0"),
    ({"padding": (1, None)}, TypeError, "padding: expected an int"),
    ({"padding": "full"}, ValueError, "padding: .*got 'full'"),
    ({"padding": "same", "stride": 2}, ValueError, "padding: expected ints with stride"),
    ({"padding": 2**40}, ValueError, "padding: expected at most 2147483647"),
    ({"stride": (1, 2**70)}, ValueError, "stride: expected at most"),
    ({"dilation": 0}, ValueError, "dilation: expected at least 1"),
    ({"groups": 3}, ValueError, "groups: expected a divisor of 4 input and 8 output"),
    ({"groups": 2}, ValueError, "weight: expected 2 channels"),
    ({"groups": 0}, ValueError, "groups: expected at least 1"),
    ({"groups": 1.0}, TypeError, "groups: expected an int"),
    ({"momentum": "0.1"}, TypeError, "momentum: expected a number"),
    ({"eps": -1e-5}, ValueError, "eps: expected at least 0"),
    ({"eps": float("nan")}, ValueError, "eps: expected at least 0"),
    ({"eps": None}, TypeError, "eps: expected a number"),
    ({"eps": 0.0}, ValueError, "eps: expected more than 0 in training"),
    ({"training": 1}, TypeError, "training: expected a bool"),
    ({"backend": "cudnn"}, ValueError, "backend: expected one of"),
    ({"backend": ["native"]}, ValueError, "backend: expected one of"),
    ({"process_group": "world"}, TypeError, "process_group: expected a torch.distributed.Process"),
]


@pytest.mark.parametrize("change, error, message", BAD_ARGUMENTS, ids=lambda v: None)
def test_conv_bn_act(change, error, message):
    given = {"training": True, **arguments(), **change}
    with pytest.raises(error, match=message):
        ops.conv_bn_act(**given)
    assert arguments()["num_batches_tracked"] == 0
    mean = given["running_mean"]
    assert mean is None or torch.equal(mean, torch.zeros(8)), "running statistics were touched"


def layer(c=4, k=4, **kw):
    return ops.ConvBN(torch.randn(k, c, 3, 3), padding=1, **kw)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: ops.residual_block(x, []), ValueError, "convs: expected at least one"),
        (lambda x: ops.residual_block(x, [None]), TypeError, r"convs\[0\]: expected a ConvBN"),
        (
            lambda x: ops.residual_block(x, [layer(4, 6), layer(5, 4)]),
            ValueError,
            "weight: expected 6 channels",
        ),
        (
            lambda x: ops.basic_block(x, layer(4, 6), layer(6, 6)),
            ValueError,
            "downsample: expected a ConvBN where",
        ),
        (
            lambda x: ops.basic_block(x, layer(), layer(), layer(4, 6)),
            ValueError,
            "downsample: expected output size",
        ),
        (
            lambda x: ops.basic_block(x, layer(), layer(), layer(), shortcut=x),
            ValueError,
            "shortcut: expected None beside downsample",
        ),
        (
            lambda x: ops.basic_block(x, layer(), layer(), shortcut=x[:1]),
            ValueError,
            "shortcut: expected shape",
        ),
        (
            lambda x: ops.basic_block(x, layer(), layer()._replace(padding="diagonal")),
            ValueError,
            "padding: ",
        ),
        (lambda x: ops.stem(x, layer(), pool=3), ValueError, "pool: expected None or"),
        (lambda x: ops.stem(x, None), TypeError, "conv: expected a ConvBN"),
        (lambda x: ops.residual_stage(x, []), ValueError, "blocks: expected at least one"),
        (lambda x: ops.residual_stage(x, [layer()]), TypeError, r"blocks\[0\]: expected a Block"),
        (
            lambda x: ops.residual_stage(x, [ops.Block([layer()])], stem=x),
            TypeError,
            "stem: expected a ConvBN",
        ),
        (lambda x: ops.preact_block(x, None, []), TypeError, "bns: expected a sequence"),
        (lambda x: ops.preact_block(x, [], []), ValueError, "bns: expected as many as convs"),
        (
            lambda x: ops.preact_block(x, [ops.BN()], [ops.Conv(torch.randn(6, 4, 1, 1))]),
            ValueError,
            "shortcut: expected a result of size",
        ),
        (lambda x: ops.bn_act(x[0]), ValueError, "y: expected 4 dimensions"),
        (lambda x: ops.bn_act(x, torch.ones(3)), ValueError, "gamma: expected shape"),
        (lambda x: ops.conv_act(x, torch.ones(2, 3, 1, 1)), ValueError, "weight: expected 4"),
        (lambda x: ops.conv_act(x, x, torch.ones(9)), ValueError, "bias: expected shape"),
        (lambda x: ops.max_pool(x, 0), ValueError, "kernel: expected at least 1"),
        (lambda x: ops.max_pool(x, 7), ValueError, "kernel: expected an image no smaller"),
        (lambda x: ops.max_pool(x, 3, padding=2), ValueError, "padding: expected at most half"),
        (lambda x: ops.max_pool(x, 16), ValueError, "kernel: expected at most 255 taps"),
        (lambda x: ops.avg_pool(x, 7), ValueError, "kernel: expected an image no smaller"),
        (lambda x: ops.avg_pool(x[:, :, :0]), ValueError, "x: expected an image of at least 1 x 1"),
        (lambda x: ops.avg_pool(x, stride=2), ValueError, "kernel: expected a kernel"),
        (lambda x: ops.avg_pool(x.int(), 2), TypeError, "x: expected float32"),
    ],
    ids=lambda v: None,
)
def test_other_ops(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.randn(2, 4, 6, 6))
