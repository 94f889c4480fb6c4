"""The block ops against plain torch: residual blocks, stem, pre-activation block, stage."""

from __future__ import annotations

import inputs
import pytest
import tolerances
import torch
from oracle import compare, l2_error
from shapes import DTYPE_NAMES, ConvShape

from resnet_kernels import ops

DTYPES = list(DTYPE_NAMES)
LOW = (torch.float16, torch.bfloat16)


class Layers:
    """Conv-BN layers whose tensors live in one flat dict, as compare() wants them."""

    def __init__(self, rng, dtype=torch.float32):
        self.rng, self.dtype = rng, dtype
        self.tensors, self.static = {}, []

    def add(self, c, k, r, stride=1, bias=False, norm=None, **geometry):
        i = len(self.static)
        shape = ConvShape(1, c, 1, 1, k, r, r, groups=geometry.get("groups", 1))
        own = {"weight": inputs.weight(self.rng, shape, self.dtype)}
        own |= inputs.bn_tensors(self.rng, norm or k, self.dtype)
        if bias:
            own["conv_bias"] = inputs.normal(self.rng, k, dtype=inputs.vector_dtype(self.dtype))
        self.tensors |= {f"{name}_{i}": value for name, value in own.items()}
        self.static.append({"stride": (stride, stride), "padding": (r // 2, r // 2), **geometry})
        return i

    def build(self, make, tensors, training):
        """One bundle per layer: make is ops.ConvBN or dict."""
        bundles = []
        for i, static in enumerate(self.static):
            own = {n.rsplit("_", 1)[0]: t for n, t in tensors.items() if n.endswith(f"_{i}")}
            bundles.append(make(**own, **static, training=training))
        return bundles

    def buffers(self):
        return [n for n in self.tensors if n.startswith("running")]


def check_block(rng, repro, backend, layers, x, act, training, shortcut=None, down=False, **kw):
    tensors = {"x": x, **layers.tensors}
    if shortcut is not None:
        tensors["shortcut"] = shortcut

    def split(bundles):
        return (bundles[:-1], bundles[-1]) if down else (bundles, None)

    def op(x, shortcut=None, **t):
        convs, downsample = split(layers.build(ops.ConvBN, t, training))
        return ops.residual_block(x, convs, downsample, shortcut=shortcut, act=act, backend=backend)

    def plain(p):
        def run(x, shortcut=None, **t):
            return p.residual_block(x, *split(layers.build(dict, t, training)), shortcut, act)

        return run

    kw.setdefault("wanted", inputs.trainable(tensors))
    return compare(
        op, plain, tensors, buffers=layers.buffers(), rng=rng, repro=repro,
        depth=len(layers.static),
        reduction_length=100, **kw,
    )  # fmt: skip


def make_block(rng, kind, dtype=torch.float32, size=(3, 8, 6, 6), layout="channels_last"):
    """(layers, x, shortcut, down) of a block of `kind`."""
    layers = Layers(rng, dtype)
    x = inputs.activation(rng, size, dtype, layout)
    down = kind.endswith("down")
    c = size[1]
    if kind.startswith("basic"):
        layers.add(c, 10 if down else c, 3, 2 if down else 1)
        layers.add(10 if down else c, 10 if down else c, 3)
    else:
        layers.add(c, 6, 1)
        layers.add(6, 6, 3, 2 if down else 1, groups=2)
        layers.add(6, 12 if down else c, 1)
    if down:
        layers.add(c, 10 if kind.startswith("basic") else 12, 1, 2)
    shortcut = inputs.activation(rng, size, dtype) if kind.endswith("shortcut") else None
    return layers, x, shortcut, down


KINDS = ["basic-identity", "basic-down", "bottleneck-identity", "bottleneck-down", "basic-shortcut"]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("act", ops.ACTS)
@pytest.mark.parametrize("kind", KINDS)
def test_acts(kind, act, training, rng, repro, backend):
    layers, x, shortcut, down = make_block(rng, kind)
    check_block(rng, repro, backend, layers, x, act, training, shortcut, down)


@pytest.mark.parametrize("act", ["gelu", "silu"])
@pytest.mark.parametrize("kind", KINDS[2:])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=DTYPE_NAMES.get)
def test_dtypes(dtype, kind, act, rng, repro, backend):
    layers, x, shortcut, down = make_block(rng, kind, dtype)
    check_block(rng, repro, backend, layers, x, act, True, shortcut, down)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", LOW, ids=DTYPE_NAMES.get)
def test_relu_in_low_precision_follows_the_single_layers(dtype, kind, rng, repro, backend):
    layers, x, shortcut, down = make_block(rng, kind, dtype)
    dz = None
    results = []
    for as_block in (True, False):
        leaves = {n: v.clone() for n, v in layers.tensors.items()} | {"x": x.clone()}
        for name in inputs.trainable(leaves):
            leaves[name].requires_grad_()
        bundles = layers.build(ops.ConvBN, leaves, True)
        convs, last = (bundles[:-1], bundles[-1]) if down else (bundles, None)
        if as_block:
            z = ops.residual_block(leaves["x"], convs, last, shortcut=shortcut, backend=backend)
        else:
            skip = leaves["x"] if shortcut is None else shortcut
            if last is not None:
                skip = ops.conv_bn_act(leaves["x"], **last._asdict(), act=None, backend=backend)
            h = leaves["x"]
            for conv in convs[:-1]:
                h = ops.conv_bn_act(h, **conv._asdict(), backend=backend)
            z = ops.conv_bn_act(h, **convs[-1]._asdict(), residual=skip, backend=backend)
        dz = inputs.normal(rng, *z.shape, dtype=dtype) if dz is None else dz
        z.backward(dz)
        results.append((z, {n: leaves[n].grad for n in inputs.trainable(leaves)}))
    (z, grads), (expected, expected_grads) = results
    if not down:
        assert torch.equal(z, expected), repro
    limit = tolerances.CHAIN_ULPS * len(layers.static) * torch.finfo(dtype).eps
    for name, grad in grads.items():
        error = l2_error(grad, expected_grads[name].double())
        assert error <= limit, f"grad {name}: {error:.3e} > {limit:.3e}\n{repro}"


@pytest.mark.parametrize("size", [(0, 8, 4, 4), (3, 8, 1, 1), (1, 8, 3, 5)], ids=str)
@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "sliced"])
def test_sizes_and_layouts(layout, size, rng, repro, backend):
    layers, x, _, _ = make_block(rng, "basic-identity", size=size, layout=layout)
    z = check_block(rng, repro, backend, layers, x, "gelu", True)
    if layout != "sliced":
        kind = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        assert z.is_contiguous(memory_format=kind)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_conv_bias(training, rng, repro, backend):
    layers = Layers(rng)
    layers.add(8, 8, 3, bias=True)
    layers.add(8, 8, 3, bias=True)
    x = inputs.activation(rng, (2, 8, 5, 5))
    names = inputs.trainable({"x": x, **layers.tensors})
    wanted = [n for n in names if not (training and n.startswith("conv_bias"))]
    check_block(rng, repro, backend, layers, x, "silu", training, wanted=wanted)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "wanted",
    [("x",), ("weight_0",), ("gamma_1",), ("weight_3",), ("beta_2", "weight_2"), ()],
    ids=lambda w: "-".join(w) or "none",
)
def test_gradients_only_where_wanted(wanted, training, rng, repro, backend):
    layers, x, _, _ = make_block(rng, "bottleneck-down")
    check_block(rng, repro, backend, layers, x, "silu", training, down=True, wanted=wanted)


def test_some_layers_frozen(rng, repro, backend):
    """Batch statistics in one layer, running ones in the next."""
    layers, x, _, _ = make_block(rng, "bottleneck-identity")
    plain_build = layers.build

    def build(make, tensors, training):
        bundles = plain_build(dict, tensors, training)
        return [make(**b | {"training": i != 1}) for i, b in enumerate(bundles)]

    layers.build = build
    check_block(rng, repro, backend, layers, x, "gelu", True)


def test_named_blocks_are_residual_blocks(rng, backend):
    for kind, op in (("basic-down", ops.basic_block), ("bottleneck-down", ops.bottleneck)):
        layers, x, _, _ = make_block(rng, kind)
        *convs, down = layers.build(ops.ConvBN, layers.tensors, False)
        expected = ops.residual_block(x, convs, down, act="silu", backend=backend)
        assert torch.equal(op(x, *convs, down, act="silu", backend=backend), expected)


def test_block_keeps_raw_outputs_and_a_mask(rng, backend):
    """No activated tensor: x, one y a convolution, one bit an output element, vectors."""
    layers, x, _, _ = make_block(rng, "bottleneck-identity", size=(4, 8, 12, 12))
    bundles = layers.build(ops.ConvBN, layers.tensors, True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ops.residual_block(x.requires_grad_(), bundles, backend=backend)
    large = sorted(t.numel() for t in kept if t.dim() == 4 and t.shape[0] == 4)
    y = 4 * 12 * 12
    assert large == sorted([8 * y, 6 * y, 6 * y, 8 * y])
    assert [t.numel() for t in kept if t.dtype == torch.uint8] == [y]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES.get)
@pytest.mark.parametrize("pool", [(3, 2, 1), (2, 2, 0)], ids=str)
def test_stem(pool, dtype, training, rng, repro, backend):
    layers = Layers(rng, dtype)
    layers.add(3, 8, 7, 2)
    tensors = {"x": inputs.activation(rng, (2, 3, 21, 18), dtype), **layers.tensors}

    def op(x, **t):
        (conv,) = layers.build(ops.ConvBN, t, training)
        return ops.stem(x, conv, act="silu", pool=pool, backend=backend)

    def plain(p):
        return lambda x, **t: p.stem(x, layers.build(dict, t, training)[0], "silu", pool)

    compare(
        op, plain, tensors, wanted=inputs.trainable(tensors), buffers=layers.buffers(), rng=rng,
        repro=repro, reduction_length=147,
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("act", ["relu", "silu"])
@pytest.mark.parametrize("projection", [False, True], ids=["identity", "projection"])
@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES.get)
def test_preact_block(dtype, projection, act, training, rng, repro, backend):
    act = "gelu" if act == "relu" and dtype in LOW else act
    layers = Layers(rng, dtype)
    k, stride = (12, 2) if projection else (8, 1)
    layers.add(8, 6, 3, stride, bias=True, norm=8)
    layers.add(6, 6, 1, norm=6)
    layers.add(6, k, 3, bias=True, norm=6)
    if projection:
        layers.add(8, k, 1, stride, bias=True)
        for name in ("gamma", "beta", "running_mean", "running_var"):
            del layers.tensors[f"{name}_3"]
    tensors = {"x": inputs.activation(rng, (3, 8, 6, 6), dtype), **layers.tensors}

    def arguments(t, make_bn, make_conv):
        rows = layers.build(dict, t, training)
        norm = ("gamma", "beta", "running_mean", "running_var", "training")
        geometry = ("stride", "padding")
        bns = [make_bn(**{n: row[n] for n in norm}) for row in rows[:3]]
        convs = [
            make_conv(weight=r["weight"], bias=r.get("conv_bias"), **{n: r[n] for n in geometry})
            for r in rows
        ]
        return bns, convs[:3], convs[3] if projection else None

    skipped = "conv_bias_0" if training else ""
    compare(
        lambda x, **t: ops.preact_block(
            x, *arguments(t, ops.BN, ops.Conv), act=act, backend=backend
        ),
        lambda p: lambda x, **t: p.preact_block(x, *arguments(t, dict, dict), act),
        tensors,
        wanted=[n for n in inputs.trainable(tensors) if n != skipped],
        buffers=layers.buffers(), rng=rng, repro=repro, reduction_length=72, depth=4,
    )  # fmt: skip


def make_stage(rng):
    """(layers, bundles -> stem, blocks)."""
    layers = Layers(rng)
    layers.add(3, 8, 7, 2)
    for c, k, stride in ((8, 12, 1), (12, 12, 1), (12, 10, 2)):
        layers.add(c, 6, 1)
        layers.add(6, 6, 3, stride)
        layers.add(6, k, 1)
        if c != k:
            layers.add(c, k, 1, stride)

    def split(b):
        return b[0], [
            ops.Block(b[1:4], b[4]),
            ops.Block(b[5:8], act="silu"),
            ops.Block(b[8:11], b[11]),
        ]

    return layers, split


# Arguments of the stem in front of the stage and the size of the image.
STEMS = {
    "blocks": (None, 0),
    "stem": ({"act": "relu", "pool": (3, 2, 1)}, 32),
    "unpooled": ({"act": "leaky_relu", "negative_slope": 0.3, "pool": None}, 16),
}


def stem_of_stage(options):
    """The stem's options as residual_stage names them."""
    names = {"act": "stem_act", "negative_slope": "stem_negative_slope"}
    return {names.get(name, name): value for name, value in options.items()}


@pytest.mark.parametrize("front", list(STEMS))
def test_residual_stage_equals_its_blocks(front, rng, backend):
    """Bit for bit, gradients and running statistics included, with less kept."""
    layers, split = make_stage(rng)
    options, size = STEMS[front]
    with_stem = options is not None
    x = inputs.activation(rng, (2, 3, size, size) if with_stem else (2, 8, 8, 8))
    dz = inputs.normal(rng, 2, 10, 4, 4)
    results = []
    for as_stage in (False, True):
        leaves = {n: v.clone() for n, v in layers.tensors.items()} | {"x": x.clone()}
        used = [n for n in inputs.trainable(leaves) if with_stem or not n.endswith("_0")]
        for name in used:
            leaves[name].requires_grad_()
        stem, blocks = split(layers.build(ops.ConvBN, leaves, True))
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t) or t, _same):
            if as_stage:
                extra = {"stem": stem, **stem_of_stage(options)} if with_stem else {}
                z = ops.residual_stage(leaves["x"], blocks, **extra, backend=backend)
            else:
                z = leaves["x"]
                if with_stem:
                    z = ops.stem(z, stem, **options, backend=backend)
                for b in blocks:
                    z = ops.residual_block(z, b.convs, b.downsample, act=b.act, backend=backend)
        z.backward(dz)
        size = sum(t.numel() for t in {t.data_ptr(): t for t in kept if t.dim() == 4}.values())
        tensors = [z, *(leaves[n].grad for n in used), *(leaves[n] for n in layers.buffers())]
        results.append((tensors, size))
    (expected, chain_size), (actual, stage_size) = results
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert stage_size < chain_size


def _same(t):
    return t


@pytest.mark.parametrize("front", ["stem", "unpooled"])
def test_residual_stage_without_gradients(front, rng, backend):
    layers, split = make_stage(rng)
    options, size = STEMS[front]
    stem, blocks = split(layers.build(ops.ConvBN, layers.tensors, False))
    x = inputs.activation(rng, (2, 3, size, size))
    z = ops.stem(x, stem, **options, backend=backend)
    for b in blocks:
        z = ops.residual_block(z, b.convs, b.downsample, act=b.act, backend=backend)
    options = stem_of_stage(options)
    assert torch.equal(ops.residual_stage(x, blocks, stem=stem, **options, backend=backend), z)
