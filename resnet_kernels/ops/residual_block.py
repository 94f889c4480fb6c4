"""basic_block, bottleneck: a whole residual block as one differentiable op."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .acts import IDENTITY, SIGN_ACTS
from .block_parts import (
    BlockSpec,
    kept_from_flat,
    needs_from_flat,
    params_from_flat,
)
from .block_steps import block_backward, block_forward, block_inference
from .layers import (
    LAYER_TENSORS,
    ActSpec,
    ConvBN,
    Layer,
    act_spec,
    apply,
    as_dense,
    autocasts,
    conv_bn_layer,
    wants_grad,
)
from .library import namespace


class _ResidualBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ns: Any,
        spec: BlockSpec,
        x: Tensor,
        shortcut: Tensor | None,
        *flat: Tensor | None,
    ) -> Tensor:
        x = as_dense(x)
        params = params_from_flat(flat)
        out, kept = block_forward(ns, spec, x, shortcut, params)
        ctx.ns, ctx.spec, ctx.has_shortcut = ns, spec, shortcut is not None
        kept_shortcut = None if spec.act.act in (IDENTITY, *SIGN_ACTS) else shortcut
        ctx.save_for_backward(x, kept_shortcut, *flat, *kept.flat())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        x, shortcut, *rest = ctx.saved_tensors
        size = LAYER_TENSORS * len(ctx.spec.layers)
        params, kept = params_from_flat(rest[:size]), kept_from_flat(rest[size:])
        need_x, need_shortcut, *need_layers = ctx.needs_input_grad[2:]
        needs = needs_from_flat(need_x, need_shortcut, need_layers)
        grads = block_backward(
            ctx.ns, ctx.spec, dout, x, shortcut, ctx.has_shortcut, params, kept, needs
        )
        return None, None, grads.dx, grads.dshortcut, *chain.from_iterable(grads.layers)


def chain_layers(
    ns: Any, x: Tensor, size: Sequence[int], convs: Sequence[ConvBN], name: str
) -> list[Layer]:
    """Checked layers of convolutions in a row, the first with an input of `size`."""
    layers: list[Layer] = []
    for i, conv in enumerate(convs):
        if not isinstance(conv, ConvBN):
            raise TypeError(f"{name}[{i}]: expected a ConvBN, got {type(conv).__name__}")
        layer, extra = conv_bn_layer(ns, x, conv, size)
        if extra != (0, 0):
            raise ValueError(
                f"{name}[{i}].padding: expected the same padding on both sides, got 'same' with "
                f"an even kernel {list(conv.weight.shape[2:])}"
            )
        layers.append(layer)
        size = layer.out_size
    return layers


def block_layers(
    ns: Any,
    x: Tensor,
    size: Sequence[int],
    convs: Sequence[ConvBN],
    downsample: ConvBN | None,
    shortcut: Tensor | None,
) -> tuple[list[Layer], Layer | None]:
    """Checked layers of the main branch and the projection of a block with an input of `size`."""
    if not convs:
        raise ValueError("convs: expected at least one ConvBN, got none")
    main = chain_layers(ns, x, size, convs, "convs")
    out_size = main[-1].out_size
    if downsample is not None:
        if shortcut is not None:
            raise ValueError("shortcut: expected None beside downsample, got a Tensor")
        (projection,) = chain_layers(ns, x, size, [downsample], "downsample")
        if projection.out_size != out_size:
            raise ValueError(
                f"downsample: expected output size {out_size}, got {projection.out_size}"
            )
        return main, projection
    if shortcut is not None:
        checks.residual(shortcut, x, out_size, "shortcut")
    elif list(size) != out_size:
        raise ValueError(
            f"downsample: expected a ConvBN where the output size {out_size} differs from the "
            f"input size {list(size)}, got None"
        )
    return main, None


def block_spec(main: Sequence[Layer], projection: Layer | None, act: ActSpec) -> BlockSpec:
    specs = tuple(layer.spec for layer in main)
    return BlockSpec(specs, None if projection is None else projection.spec, act)


def flat_tensors(main: Sequence[Layer], projection: Layer | None) -> list[Tensor | None]:
    layers = [*main] if projection is None else [*main, projection]
    return list(chain.from_iterable(layer.tensors() for layer in layers))


@autocasts
def residual_block(
    x: Tensor,
    convs: Sequence[ConvBN],
    downsample: ConvBN | None = None,
    *,
    shortcut: Tensor | None = None,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    backend: str | None = None,
) -> Tensor:
    """A residual block of any number of convolutions, each with its batch norm, as one op.

    Equivalent to: act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + s), where s is downsample's
        bn(conv(x)), or shortcut, or x

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        convs, downsample: ConvBN bundles; see conv_bn_act for their tensors.
        shortcut: (N, K, P, Q), dtype of x, added in place of x.
    Returns: (N, K, P, Q), dtype and memory format of x. Keeps x, the raw convolution outputs,
        vectors (K,) and one bit an output element for backward.
    Raises: ValueError or TypeError naming the argument, the expected and the given value. A second
        derivative raises.
    """
    checks.activation(x, "x")
    ns = namespace(backend)
    main, projection = block_layers(ns, x, x.shape, convs, downsample, shortcut)
    spec = act_spec(act, negative_slope)
    return run_residual_block(x, ns, main, projection, spec, shortcut=shortcut)


@autocasts
def run_residual_block(
    x: Tensor,
    ns: Any,
    main: Sequence[Layer],
    projection: Layer | None,
    act: ActSpec,
    *,
    shortcut: Tensor | None = None,
) -> Tensor:
    """residual_block of checked layers."""
    spec = block_spec(main, projection, act)
    flat = flat_tensors(main, projection)
    if wants_grad(x, shortcut, *flat):
        return apply(_ResidualBlock, ns, spec, x, shortcut, *flat)
    return block_inference(ns, spec, as_dense(x), shortcut, params_from_flat(flat))


def basic_block(
    x: Tensor,
    conv1: ConvBN,
    conv2: ConvBN,
    downsample: ConvBN | None = None,
    *,
    shortcut: Tensor | None = None,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    backend: str | None = None,
) -> Tensor:
    """ResNet's basic block: residual_block of two convolutions (He et al. 2015, figure 5 left).

    Equivalent to: act(bn2(conv2(act(bn1(conv1(x))))) + s), s as in residual_block

    Args, Returns, Raises: as residual_block.
    """
    return residual_block(
        x,
        (conv1, conv2),
        downsample,
        shortcut=shortcut,
        act=act,
        negative_slope=negative_slope,
        backend=backend,
    )


def bottleneck(
    x: Tensor,
    conv1: ConvBN,
    conv2: ConvBN,
    conv3: ConvBN,
    downsample: ConvBN | None = None,
    *,
    shortcut: Tensor | None = None,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    backend: str | None = None,
) -> Tensor:
    """ResNet's bottleneck: residual_block of three convolutions (He et al. 2015, figure 5 right).

    Equivalent to: act(bn3(conv3(act(bn2(conv2(act(bn1(conv1(x)))))))) + s), s as in residual_block

    Args, Returns, Raises: as residual_block.
    """
    return residual_block(
        x,
        (conv1, conv2, conv3),
        downsample,
        shortcut=shortcut,
        act=act,
        negative_slope=negative_slope,
        backend=backend,
    )
