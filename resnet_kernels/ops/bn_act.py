"""bn_act: z = act(bn(y) + residual), for a BN that follows no convolution of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .acts import IDENTITY
from .bn_layer import BNMode, BNParams, act_forward, bn_act_backward, bn_state, dense_like
from .layers import (
    BN,
    ActSpec,
    act_spec,
    apply,
    as_dense,
    autocasts_residual,
    bn_mode,
    bn_params,
    wants_grad,
)
from .library import namespace


class _BNAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ns: Any,
        mode: BNMode,
        act: ActSpec,
        y: Tensor,
        residual: Tensor | None,
        *params: Tensor | None,
    ) -> Tensor:
        y = as_dense(y)
        state = bn_state(ns, mode, BNParams(*params), y)
        if residual is not None:
            residual = dense_like(residual, y)
        z, mask = act_forward(ns, y, state, residual, None, *act)
        ctx.ns, ctx.mode, ctx.act, ctx.plain = ns, mode, act, residual is None
        kept_residual = residual if mask is None and act.act != IDENTITY else None
        ctx.save_for_backward(y, params[0], mask, kept_residual, *state)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[3:8]
        grads = bn_act_backward(ctx, dz, ctx.saved_tensors, ctx.mode, needs)
        return None, None, None, grads.dy, grads.dresidual, *grads.vectors, None, None, None


@autocasts_residual
def bn_act(
    y: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    num_batches_tracked: Tensor | None = None,
    residual: Tensor | None = None,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    process_group: Any = None,
    backend: str | None = None,
) -> Tensor:
    """Batch norm, optional residual add and activation in one pass.

    Equivalent to: act(F.batch_norm(y, ...) + residual)

    Args: as conv_bn_act, with y (N, K, P, Q) in place of the convolution.
    Returns: (N, K, P, Q), dtype and memory format of y. Keeps y, vectors (K,) and, with residual,
        one bit an element (gelu, silu: the residual) for backward.
    Raises: as conv_bn_act.
    """
    checks.activation(y, "y")
    ns = namespace(backend)
    bn = BN(
        gamma, beta, running_mean, running_var, num_batches_tracked, training, momentum, eps,
        process_group,
    )  # fmt: skip
    checks.batch_norm(bn, y.shape[1], y)
    spec = act_spec(act, negative_slope)
    if residual is not None:
        checks.residual(residual, y, y.shape)
    mode = bn_mode(bn, y.shape)
    params = bn_params(bn, None, y, mode)
    return run_bn_act(y, ns, params, mode, spec, residual=residual)


@autocasts_residual
def run_bn_act(
    y: Tensor,
    ns: Any,
    params: BNParams,
    mode: BNMode,
    act: ActSpec,
    *,
    residual: Tensor | None = None,
) -> Tensor:
    """bn_act of a checked batch norm."""
    if wants_grad(y, residual, *params[:2]):
        return apply(_BNAct, ns, mode, act, y, residual, *params)
    y = as_dense(y)
    state = bn_state(ns, mode, params, y)
    residual = None if residual is None else dense_like(residual, y)
    return ns.bn_act_fwd(y, state.scale, state.bias, residual, None, None, *act)
