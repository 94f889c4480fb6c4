"""conv_act: z = act(conv(x, w) + bias + residual), a convolution without batch norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .acts import IDENTITY, LEAKY_RELU, SIGN_ACTS
from .bn_layer import dense_like
from .fakes import conv_out_size, stats_dtype
from .layers import (
    NO_EPILOGUE,
    NO_PROLOGUE,
    ActSpec,
    Conv,
    ConvArgs,
    act_spec,
    apply,
    as_dense,
    autocasts,
    conv_geometry,
    pad_extra,
    residual_for,
    vector_for,
    wants_grad,
    weight_for,
)
from .layout import conv_memory_format
from .library import namespace
from .packed_filter import inference_filter


class _ConvAct(torch.autograd.Function):
    """Keeps z where the sign of z gives act', else the convolution's output y."""

    @staticmethod
    def forward(
        ctx: Any,
        ns: Any,
        conv: Any,
        act: ActSpec,
        x: Tensor,
        residual: Tensor | None,
        w: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        x = as_dense(x)
        residual = residual_for(residual, x, w)
        ctx.ns, ctx.conv, ctx.act, ctx.x_size = ns, conv, act, x.shape
        ctx.layout = conv_memory_format(x, w)
        kept_x = x if ctx.needs_input_grad[5] else None
        if _sign_of_z_suffices(act):
            z = ns.conv_fwd(x, w, *NO_PROLOGUE, None, bias, residual, *act, *conv)
            ctx.save_for_backward(kept_x, w, None if act.act == IDENTITY else z, None, None)
            return z
        y = ns.conv_fwd(x, w, *NO_PROLOGUE, *NO_EPILOGUE, *conv)
        one, zero = _unit_bn(y)
        ctx.save_for_backward(kept_x, w, y, bias, residual)
        return ns.bn_act_fwd(y, one, zero if bias is None else bias, residual, None, None, *act)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        x, w, kept, bias, residual = ctx.saved_tensors
        need_x, need_residual, need_w, need_bias = ctx.needs_input_grad[3:]
        act, slope = ctx.act
        if kept is None:
            g = dz.contiguous(memory_format=ctx.layout)
            sums = dz.sum((0, 2, 3), dtype=stats_dtype(dz.dtype))[None] if need_bias else None
        else:
            one, zero = _unit_bn(kept)
            g, sums = ctx.ns.bn_act_bwd_reduce_add(
                dense_like(dz, kept), kept, zero, one, one, zero if bias is None else bias,
                residual, None, act, slope,
            )  # fmt: skip
        dx = ctx.ns.conv_dgrad(g, w, None, ctx.x_size, *ctx.conv) if need_x else None
        dw = ctx.ns.conv_wgrad(g, x, w, *NO_PROLOGUE, *ctx.conv) if need_w else None
        dbias = sums[0] if need_bias and sums is not None else None
        return None, None, None, dx, g if need_residual else None, dw, dbias


def _sign_of_z_suffices(act: ActSpec) -> bool:
    if act.act == LEAKY_RELU:
        return act.slope >= 0
    return act.act == IDENTITY or act.act in SIGN_ACTS


def _unit_bn(y: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of ones and zeros [K]: a BN that does nothing."""
    one = torch.ones(y.shape[1], dtype=stats_dtype(y.dtype), device=y.device)
    return one, torch.zeros_like(one)


@autocasts
def conv_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Tensor:
    """Convolution, bias, optional residual add and activation as one differentiable op.

    Equivalent to: act(F.conv2d(x, weight, bias, ...) + residual)

    Args and Raises: as conv_bn_act.
    Returns: (N, K, P, Q), dtype and memory format of x. Keeps x and the result (gelu, silu: x, the
        convolution's output and the residual) for backward.
    """
    checks.activation(x, "x")
    ns = namespace(backend)
    checks.weight(weight, x.shape, x, groups)
    checks.vector(bias, weight.shape[0], x, "bias")
    spec = act_spec(act, negative_slope)
    bundle = Conv(weight, bias, stride, padding, dilation, groups)
    conv, extra = conv_geometry(ns, x, weight, bundle)
    x = pad_extra(x, extra)
    out_size = conv_out_size(x.shape, weight.shape, *conv[:3])
    checks.image_covers_kernel(out_size, "weight")
    if residual is not None:
        checks.residual(residual, x, out_size)
    weight, bias = weight_for(weight, x), vector_for(bias, x)
    return run_conv_act(x, ns, weight, bias, conv, spec, residual=residual)


@autocasts
def run_conv_act(
    x: Tensor,
    ns: Any,
    weight: Tensor,
    bias: Tensor | None,
    conv: ConvArgs,
    act: ActSpec,
    *,
    residual: Tensor | None = None,
) -> Tensor:
    """conv_act of checked arguments; x has its whole padding."""
    if wants_grad(x, residual, weight, bias):
        return apply(_ConvAct, ns, conv, act, x, residual, weight, bias)
    x = as_dense(x)
    residual = residual_for(residual, x, weight)
    weight = inference_filter(ns, weight)
    return ns.conv_fwd(x, weight, *NO_PROLOGUE, None, bias, residual, *act, *conv)
