"""stem: maxpool(act(bn(conv(x)))) as one differentiable op; the activated image is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .bn_layer import (
    BNParams,
    BNState,
    act_forward,
    bn_backward,
    dense_like,
    needs_sums,
    vector_gradients,
)
from .conv_bn_act import conv_bn_act, conv_bn_act_inference
from .fakes import pool_out_size
from .layers import (
    NO_PROLOGUE,
    ActSpec,
    ConvBN,
    Layer,
    LayerSpec,
    act_spec,
    apply,
    as_dense,
    autocasts,
    conv_bn_forward,
    conv_bn_layer,
    pad_extra,
    wants_grad,
)
from .library import namespace
from .pool import PoolArgs, max_pool_args, max_pool_backward


class StemSpec(NamedTuple):
    """What is not a tensor; `pool` is None for a stem without pooling."""

    layer: LayerSpec
    act: ActSpec
    pool: PoolArgs | None


# y, indices and the BN state.
STEM_KEPT = 2 + len(BNState._fields)


def stem_forward(
    ns: Any, spec: StemSpec, x: Tensor, w: Tensor, params: BNParams
) -> tuple[Tensor, list[Tensor | None]]:
    """(output, what backward needs: y, indices of the pooling and the BN state)."""
    y, state = conv_bn_forward(ns, x, w, params, spec.layer, NO_PROLOGUE)
    z, indices = _activated(ns, spec, y, state)
    return z, [y, indices, *state]


def _activated(ns: Any, spec: StemSpec, y: Tensor, state: BNState) -> tuple[Tensor, Tensor | None]:
    if spec.pool is None:
        return act_forward(ns, y, state, None, None, *spec.act)
    return ns.max_pool_fwd(y, state.scale, state.bias, *spec.act, *spec.pool)


def stem_inference(ns: Any, spec: StemSpec, x: Tensor, w: Tensor, params: BNParams) -> Tensor:
    """The stem without gradients; without pooling, fixed statistics go into the epilogue."""
    if spec.pool is None:
        return conv_bn_act_inference(ns, x, None, w, params, spec.layer, spec.act)
    return stem_forward(ns, spec, x, w, params)[0]


def stem_output(ns: Any, spec: StemSpec, kept: Sequence[Any]) -> Tensor:
    """The stem's output again from what forward kept: one pass, no convolution."""
    return _activated(ns, spec, kept[0], BNState(*kept[2:]))[0]


def stem_backward(
    ns: Any,
    spec: StemSpec,
    dz: Tensor,
    x: Tensor,
    w: Tensor,
    gamma: Tensor | None,
    kept: Sequence[Any],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of (x, w, gamma, beta, conv_bias); needs in that order."""
    layer, act, pool = spec
    y, indices, *vectors = kept
    state = BNState(*vectors)
    vector_needs = tuple(needs[2:5])
    da = dz if pool is None else max_pool_backward(ns, dz, indices, y.shape, pool)
    da = dense_like(da, y)
    sums = None
    if needs_sums(state, vector_needs):
        sums = ns.bn_act_bwd_reduce(da, y, *state[:4], *act)
    dx = dw = None
    if needs[0] or needs[1]:
        dy = bn_backward(ns, layer.mode, gamma, state, y, da, sums, *act)
        dx = ns.conv_dgrad(dy, w, None, x.shape, *layer.conv) if needs[0] else None
        dw = ns.conv_wgrad(dy, x, w, *NO_PROLOGUE, *layer.conv) if needs[1] else None
    return dx, dw, *vector_gradients(state, sums, vector_needs)


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ns: Any,
        spec: StemSpec,
        x: Tensor,
        w: Tensor,
        *params: Tensor | None,
    ) -> Tensor:
        x = as_dense(x)
        z, kept = stem_forward(ns, spec, x, w, BNParams(*params))
        ctx.ns, ctx.spec = ns, spec
        ctx.save_for_backward(x, w, params[0], *kept)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        x, w, gamma, *kept = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:7]
        grads = stem_backward(ctx.ns, ctx.spec, dz, x, w, gamma, kept, needs)
        return None, None, *grads, None, None, None


def stem_pool(pool: Any, layer: Layer) -> PoolArgs:
    """Checked (kernel, stride, padding) of the stem's max pooling."""
    if not isinstance(pool, (tuple, list)) or len(pool) != 3:
        raise ValueError(f"pool: expected None or (kernel, stride, padding), got {pool!r}")
    args = max_pool_args(pool[0], pool[1], pool[2], 1, False)
    checks.image_covers_kernel(pool_out_size(layer.out_size, *args), "pool")
    return args


@autocasts
def stem(
    x: Tensor,
    conv: ConvBN,
    *,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    pool: Any = (3, 2, 1),
    backend: str | None = None,
) -> Tensor:
    """A network's first layers: convolution, batch norm, activation and max pooling as one op.

    Equivalent to: F.max_pool2d(act(bn(conv(x))), *pool), without the pooling if pool is None

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        conv: ConvBN bundle; see conv_bn_act for its tensors.
        pool: (kernel, stride, padding) of the max pooling, or None.
    Returns: (N, K, P, Q), dtype and memory format of x. Keeps x, the raw convolution output and one
        byte an output element for backward.
    Raises: ValueError or TypeError naming the argument, the expected and the given value. A second
        derivative raises.
    """
    checks.activation(x, "x")
    if not isinstance(conv, ConvBN):
        raise TypeError(f"conv: expected a ConvBN, got {type(conv).__name__}")
    if pool is None:
        return conv_bn_act(
            x, **conv._asdict(), act=act, negative_slope=negative_slope, backend=backend
        )
    ns = namespace(backend)
    spec = act_spec(act, negative_slope)
    layer, extra = conv_bn_layer(ns, x, conv)
    args = stem_pool(pool, layer)
    return run_stem(pad_extra(x, extra), ns, layer, spec, args)


@autocasts
def run_stem(x: Tensor, ns: Any, layer: Layer, act: ActSpec, pool: PoolArgs | None) -> Tensor:
    """stem of a checked layer; x has its whole padding."""
    spec = StemSpec(layer.spec, act, pool)
    if wants_grad(x, layer.weight, *layer.params[:3]):
        return apply(_Stem, ns, spec, x, *layer.tensors())
    return stem_inference(ns, spec, as_dense(x), layer.weight, layer.params)
