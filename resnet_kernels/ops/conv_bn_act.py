"""conv_bn_act: z = act(bn(conv(x, w)) + residual), one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .acts import IDENTITY
from .bn_layer import BNParams, act_forward, bn_act_backward, dense_like, state_from_running
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
    residual_for,
    wants_grad,
)
from .library import namespace
from .packed_filter import inference_filter


class _ConvBNAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ns: Any,
        spec: LayerSpec,
        act: ActSpec,
        x: Tensor,
        residual: Tensor | None,
        w: Tensor,
        *params: Tensor | None,
    ) -> Tensor:
        x = as_dense(x)
        y, state = conv_bn_forward(ns, x, w, BNParams(*params), spec, NO_PROLOGUE)
        if residual is not None:
            residual = dense_like(residual, y)
        z, mask = act_forward(ns, y, state, residual, None, *act)
        ctx.ns, ctx.spec, ctx.act, ctx.plain = ns, spec, act, residual is None
        ctx.x_size = x.shape
        kept_x = x if ctx.needs_input_grad[5] else None
        kept_residual = residual if mask is None and act.act != IDENTITY else None
        ctx.save_for_backward(kept_x, w, y, params[0], mask, kept_residual, *state)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        x, w, *saved = ctx.saved_tensors
        need_x, need_residual, need_w, *need_vectors = ctx.needs_input_grad[3:9]
        needs = (need_x or need_w, need_residual, *need_vectors)
        dy, dresidual, vectors = bn_act_backward(ctx, dz, tuple(saved), ctx.spec.mode, needs)
        conv = ctx.spec.conv
        dx = ctx.ns.conv_dgrad(dy, w, None, ctx.x_size, *conv) if need_x else None
        dw = ctx.ns.conv_wgrad(dy, x, w, *NO_PROLOGUE, *conv) if need_w else None
        return None, None, None, dx, dresidual, dw, *vectors, None, None, None


@autocasts
def conv_bn_act(
    x: Tensor,
    weight: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    conv_bias: Tensor | None = None,
    num_batches_tracked: Tensor | None = None,
    residual: Tensor | None = None,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    process_group: Any = None,
    backend: str | None = None,
) -> Tensor:
    """Convolution, batch norm, optional residual add and activation as one differentiable op.

    Equivalent to: act(F.batch_norm(F.conv2d(x, weight, conv_bias, ...), ...) + residual)

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        weight: (K, C / groups, R, S). gamma, beta, conv_bias: (K,). Any floating dtype; gradients
            come back in it.
        running_mean, running_var: (K,), updated in training; num_batches_tracked: int64, counted
        up.
        residual: (N, K, P, Q), dtype of x, added before the activation.
        act: identity, relu, gelu, silu or leaky_relu (with negative_slope).
        padding: ints, "valid" or "same".
        momentum: None averages over all batches by num_batches_tracked.
        process_group: takes the statistics over the group, as SyncBatchNorm.
        backend: None for the default; see ops.backends.
    Returns: (N, K, P, Q), dtype and memory format of x. Keeps x, the convolution's output, vectors
        (K,) and, with residual, one bit an element (gelu, silu: the residual) for backward.
    Raises: ValueError or TypeError naming the argument, the expected and the given value;
    ValueError for
        one value a channel in training. A second derivative raises.
    """
    checks.activation(x, "x")
    ns = namespace(backend)
    bundle = ConvBN(
        weight, gamma, beta, running_mean, running_var, num_batches_tracked, conv_bias, stride,
        padding, dilation, groups, training, momentum, eps, process_group,
    )  # fmt: skip
    spec = act_spec(act, negative_slope)
    layer, extra = conv_bn_layer(ns, x, bundle)
    if residual is not None:
        checks.residual(residual, x, layer.out_size)
    return run_conv_bn_act(pad_extra(x, extra), ns, layer, spec, residual=residual)


@autocasts
def run_conv_bn_act(
    x: Tensor, ns: Any, layer: Layer, act: ActSpec, *, residual: Tensor | None = None
) -> Tensor:
    """conv_bn_act of a checked layer; x has its whole padding."""
    w, params, spec, _ = layer
    if wants_grad(x, residual, w, *params[:3]):
        return apply(_ConvBNAct, ns, spec, act, x, residual, w, *params)
    return conv_bn_act_inference(ns, as_dense(x), residual, w, params, spec, act)


def conv_bn_act_inference(
    ns: Any,
    x: Tensor,
    residual: Tensor | None,
    w: Tensor,
    params: BNParams,
    spec: LayerSpec,
    act: ActSpec,
) -> Tensor:
    """Nothing is kept; fixed statistics go into the convolution's epilogue."""
    if spec.mode.batch_stats:
        y, state = conv_bn_forward(ns, x, w, params, spec, NO_PROLOGUE)
        residual = None if residual is None else dense_like(residual, y)
        return ns.bn_act_fwd(y, state.scale, state.bias, residual, None, None, *act)
    state = state_from_running(ns, spec.mode, params)
    affine = (state.scale, state.bias)
    residual = residual_for(residual, x, w)
    w = inference_filter(ns, w)
    return ns.conv_fwd(x, w, *NO_PROLOGUE, *affine, residual, *act, *spec.conv)
