"""A ResNet block's training step from our primitives, with one fusion after another switched on.

Level 0 writes everything out: convolution, statistics, batch norm with activation, each a pass of
its own, forward and backward. The last level is what the block ops run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from python_tests.shapes import ConvShape
from resnet_kernels.ops.acts import IDENTITY, RELU

from .traffic import OPS, activation, vector, weight

# Each with all before it.
LEVELS = (
    "unfused",
    "+ statistics in the convolution's epilogue",
    "+ batch norm and relu in prologues",
    "+ relu's gradient and sums in dgrad's epilogue",
    "+ bit mask",
    "+ batch norm's dy in 1x1 dgrads = block ops",
)
STATISTICS, PROLOGUE, DGRAD, MASK, APPLY = 1, 2, 3, 4, 5
NO_PROLOGUE: tuple[Any, ...] = (None, None, IDENTITY, 0.0)
NO_EPILOGUE = (None, None, None, IDENTITY, 0.0)
NO_AFFINE: tuple[Any, ...] = (None, None)
RELU_ARGS = (RELU, 0.0)


class BlockShape(NamedTuple):
    """Convolutions of the main branch, the projection if there is one, how often it occurs."""

    name: str
    convs: tuple[ConvShape, ...]
    downsample: ConvShape | None
    times: int

    @property
    def layers(self) -> tuple[ConvShape, ...]:
        return self.convs + ((self.downsample,) if self.downsample else ())

    def at(self, n: int) -> BlockShape:
        convs = tuple(s.at(n) for s in self.convs)
        return self._replace(convs=convs, downsample=self.downsample and self.downsample.at(n))


def bottleneck(name: str, c: int, h: int, k: int, stride: int, times: int) -> BlockShape:
    """ResNet v1.5's: 1x1, 3x3 with the stride, 1x1 to 4 k channels, at c channels of h x h."""
    pair, end = (stride, stride), h // stride
    convs = (
        ConvShape(1, c, h, h, k, 1, 1),
        ConvShape(1, k, h, h, k, 3, 3, pair, (1, 1)),
        ConvShape(1, k, end, end, 4 * k, 1, 1),
    )
    projection = None if c == 4 * k else ConvShape(1, c, h, h, 4 * k, 1, 1, pair)
    return BlockShape(name, convs, projection, times)


RESNET50_BLOCKS = (
    bottleneck("layer1.0", 64, 56, 64, 1, 1),
    bottleneck("layer1.1-2", 256, 56, 64, 1, 2),
    bottleneck("layer2.0", 256, 56, 128, 2, 1),
    bottleneck("layer2.1-3", 512, 28, 128, 1, 3),
    bottleneck("layer3.0", 512, 28, 256, 2, 1),
    bottleneck("layer3.1-5", 1024, 14, 256, 1, 5),
    bottleneck("layer4.0", 1024, 14, 512, 2, 1),
    bottleneck("layer4.1-2", 2048, 7, 512, 1, 2),
)


class Layer(NamedTuple):
    """A convolution's input as it is kept, its prologue, raw output, BN state and geometry."""

    h: Tensor
    prologue: tuple[Any, ...]
    w: Tensor
    gamma: Tensor
    y: Tensor
    state: tuple[Tensor, ...]  # mean, rstd, scale, bias, count
    geometry: tuple[Any, ...]


class BlockTensors(NamedTuple):
    """What exists before the step: input, gradient of the output, parameters of each layer."""

    x: Tensor
    dout: Tensor
    params: list[tuple[Tensor, Tensor, Tensor]]  # w, gamma, beta

    @classmethod
    def of(cls, block: BlockShape) -> BlockTensors:
        params = [(weight(s.w_size), vector(s.k), vector(s.k, 3)) for s in block.layers]
        return cls(activation(block.convs[0].x_size), activation(block.convs[-1].y_size, 5), params)


def forward_layer(
    h: Tensor, prologue: tuple[Any, ...], params: Any, shape: ConvShape, level: int
) -> Layer:
    w, gamma, beta = params
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
    if level >= STATISTICS:
        y, stats = OPS.conv_fwd_stats(h, w, *prologue, *geometry)
    else:
        y = OPS.conv_fwd(h, w, *prologue, *NO_EPILOGUE, *geometry)
        stats = OPS.bn_stats(y)
    state = OPS.bn_finalize(stats[None], gamma, beta, None, None, None, None, 0.1, 1e-5)
    return Layer(h, prologue, w, gamma, y, state, geometry)


def forward(block: BlockShape, t: BlockTensors, level: int) -> tuple[list[Layer], Any, Any]:
    """The layers, the residual that the block's last pass adds, the mask."""
    layers: list[Layer] = []
    h, prologue = t.x, NO_PROLOGUE
    for i, shape in enumerate(block.layers):
        if i == len(block.convs):
            h, prologue = t.x, NO_PROLOGUE
        layers.append(forward_layer(h, prologue, t.params[i], shape, level))
        y, (_, _, scale, bias, _) = layers[-1].y, layers[-1].state
        if i + 1 >= len(block.convs):
            continue
        if level >= PROLOGUE:
            h, prologue = y, (scale, bias, *RELU_ARGS)
        else:
            h, prologue = OPS.bn_act_fwd(y, scale, bias, None, None, None, *RELU_ARGS), NO_PROLOGUE
    last = layers[len(block.convs) - 1]
    residual, dual = t.x, NO_AFFINE
    if block.downsample:
        projection = layers[-1]
        residual, dual = projection.y, projection.state[2:4]
        if level < PROLOGUE:
            residual = OPS.bn_act_fwd(residual, *dual, None, None, None, IDENTITY, 0.0)
            dual = NO_AFFINE
    out = (last.y, *last.state[2:4], residual, *dual, *RELU_ARGS)
    if level < MASK:
        OPS.bn_act_fwd(*out)
        return layers, residual, None
    _, mask = OPS.bn_act_fwd_mask(*out)
    return layers, residual, mask


class Arriving(NamedTuple):
    """The gradient at a layer's batch norm, its sums, the activation still to be applied to it."""

    g: Tensor
    sums: Tensor | None
    act: int = IDENTITY


def parts_of(layer: Layer, at: Arriving) -> tuple[Tensor, ...]:
    """What dy = A * g + B * (y - mean) + C is made of."""
    mean, rstd, _, _, count = layer.state
    return at.g, layer.y, mean, OPS.bn_bwd_finalize(at.sums, layer.gamma, rstd, count)


def filter_gradient(layer: Layer, dy: Tensor) -> None:
    OPS.conv_wgrad(dy, layer.h, layer.w, *layer.prologue, *layer.geometry)


def layer_gradient(layer: Layer, at: Arriving) -> Tensor:
    """dy and, on the way, dw."""
    affine = layer.state[2:4] if at.act != IDENTITY else (None, None)
    dy = OPS.bn_bwd_apply(*parts_of(layer, at), *affine, at.act, 0.0)
    filter_gradient(layer, dy)
    return dy


def input_gradient(
    layer: Layer, at: Arriving, branch: Tensor | None, size: Any, level: int
) -> Tensor:
    """dx of a layer whose input is no batch norm's, and its dw."""
    rest = (layer.w, branch, size, *layer.geometry)
    if level < APPLY:
        return OPS.conv_dgrad(layer_gradient(layer, at), *rest)
    dx, dy = OPS.conv_apply_dgrad(*parts_of(layer, at), *rest)
    filter_gradient(layer, dy)
    return dx


def through(layer: Layer, at: Arriving, before: Layer, level: int) -> Arriving:
    """What arrives at the layer before, and this one's dw."""
    bn = (before.y, *before.state[:4])
    if level < DGRAD:
        dy = layer_gradient(layer, at)
        g = OPS.conv_dgrad(dy, layer.w, None, before.y.shape, *layer.geometry)
        return Arriving(g, OPS.bn_act_bwd_reduce(g, *bn, *RELU_ARGS), RELU)
    rest = (layer.w, None, *bn, None, *RELU_ARGS, *layer.geometry)
    if level < APPLY:
        return Arriving(*OPS.conv_dgrad_bn(layer_gradient(layer, at), *rest))
    g, sums, dy = OPS.conv_apply_dgrad_bn(*parts_of(layer, at), *rest)
    filter_gradient(layer, dy)
    return Arriving(g, sums)


def block_gradient(
    block: BlockShape, t: BlockTensors, layers: list[Layer], residual: Tensor, mask: Any, level: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """g behind the last relu, the sums of the last BN and of the projection's."""
    last = layers[len(block.convs) - 1]
    bn = last.state[:4]
    if block.downsample and level >= PROLOGUE:
        projection = layers[-1]
        return OPS.bn_act_bwd_reduce_dual(
            t.dout, last.y, *bn, projection.y, *projection.state[:4], mask, *RELU_ARGS
        )
    kept = None if mask is not None else residual
    g, sums = OPS.bn_act_bwd_reduce_add(t.dout, last.y, *bn, kept, mask, *RELU_ARGS)
    sums2 = None
    if block.downsample:
        projection = layers[-1]
        sums2 = OPS.bn_act_bwd_reduce(g, projection.y, *projection.state[:4], IDENTITY, 0.0)
    return g, sums, sums2


def step(block: BlockShape, t: BlockTensors, level: int) -> None:
    """Forward and backward of one block; every gradient is wanted."""
    layers, residual, mask = forward(block, t, level)
    g, sums, sums2 = block_gradient(block, t, layers, residual, mask, level)
    branch = g
    if block.downsample:
        branch = input_gradient(layers[-1], Arriving(g, sums2), None, t.x.shape, level)
    at = Arriving(g, sums)
    for i in range(len(block.convs) - 1, 0, -1):
        at = through(layers[i], at, layers[i - 1], level)
    input_gradient(layers[0], at, branch, t.x.shape, level)


STEM = ConvShape(1, 3, 224, 224, 64, 7, 7, (2, 2), (3, 3))
POOL = ((3, 3), (2, 2), (1, 1), (1, 1))


def stem_step(shape: ConvShape, level: int) -> None:
    """Convolution, batch norm, relu, max pooling; images want no gradient. From PROLOGUE on the
    pooling applies batch norm and relu, and the activated image is never written."""
    params = (weight(shape.w_size), vector(shape.k), vector(shape.k, 3))
    layer = forward_layer(activation(shape.x_size), NO_PROLOGUE, params, shape, level)
    y, affine = layer.y, layer.state[2:4]
    if level >= PROLOGUE:
        pooled, indices = OPS.max_pool_fwd(y, *affine, *RELU_ARGS, *POOL, False)
    else:
        z = OPS.bn_act_fwd(y, *affine, None, None, None, *RELU_ARGS)
        pooled, indices = OPS.max_pool_fwd(z, *NO_PROLOGUE, *POOL, False)
    dz = OPS.max_pool_bwd(activation(pooled.shape, 5), indices, y.shape, *POOL)
    sums = OPS.bn_act_bwd_reduce(dz, y, *layer.state[:4], *RELU_ARGS)
    layer_gradient(layer, Arriving(dz, sums, RELU))
