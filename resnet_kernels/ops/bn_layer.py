"""The batch norm layer on plain tensors: what every Function does between conv and activation.

Forward: statistics -> BNState. Backward: dz -> g and sums -> dy and the gradients of gamma, beta,
conv_bias.
Frozen or eval BN is the same with fixed statistics: no total, B = C = 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .acts import IDENTITY, SIGN_ACTS


class BNMode(NamedTuple):
    """How a BN layer runs. `group` is SyncBN's process group."""

    batch_stats: bool
    momentum: float | None
    eps: float
    group: Any


class BNState(NamedTuple):
    """What backward needs of a BN layer: [K] fp32 (fp64); total [1], None for fixed statistics."""

    mean: Tensor
    rstd: Tensor
    scale: Tensor
    bias: Tensor
    total: Tensor | None


class BNParams(NamedTuple):
    """Parameters and buffers [K]; conv_bias is the bias of the convolution in front."""

    gamma: Tensor | None
    beta: Tensor | None
    conv_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None


def dense_like(t: Tensor, like: Tensor) -> Tensor:
    """t in the dense memory layout of `like`; t itself where it already lies so."""
    if t.stride() == like.stride():
        return t
    if like.is_contiguous():
        return t.contiguous()
    return t.contiguous(memory_format=torch.channels_last)


def _gather_stats(stats: Tensor, group: Any) -> Tensor:
    """[3, K] of this rank -> [G, 3, K] of all."""
    if group is None:
        return stats[None]
    size = torch.distributed.get_world_size(group)
    gathered = stats.new_empty((size, *stats.shape))
    distributed = torch.distributed
    # Newer torch warns at each call of the older name.
    gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    gather(gathered.flatten(0, 1), stats, group=group)
    return gathered


def _all_reduce(sums: Tensor, group: Any) -> Tensor:
    """The sums of all ranks; this rank's stay as they are: gradients of parameters are local."""
    if group is None:
        return sums
    total = sums.clone()
    torch.distributed.all_reduce(total, group=group)
    return total


def state_from_stats(ns: Any, mode: BNMode, params: BNParams, stats: Tensor) -> BNState:
    """Batch statistics [3, K] -> BNState; updates the running statistics."""
    stats = _gather_stats(stats, mode.group)
    return BNState(*ns.bn_finalize(stats, *params, mode.momentum, mode.eps))


def state_from_running(ns: Any, mode: BNMode, params: BNParams) -> BNState:
    gamma, beta, conv_bias, running_mean, running_var, _ = params
    mean, rstd, scale, bias = ns.bn_affine(
        running_mean, running_var, gamma, beta, conv_bias, mode.eps
    )
    return BNState(mean, rstd, scale, bias, None)


def bn_state(ns: Any, mode: BNMode, params: BNParams, y: Tensor) -> BNState:
    """BNState of a BN that does not follow one of our convolutions."""
    if mode.batch_stats:
        return state_from_stats(ns, mode, params, ns.bn_stats(y))
    return state_from_running(ns, mode, params)


def act_forward(
    ns: Any,
    y: Tensor,
    state: BNState,
    residual: Tensor | None,
    state2: BNState | None,
    act: int,
    slope: float,
) -> tuple[Tensor, Tensor | None]:
    """z = act(bn(y) [+ residual | + bn2(residual)]), and the bit mask where backward uses one."""
    dual = (None, None) if state2 is None else (state2.scale, state2.bias)
    if residual is None or act not in SIGN_ACTS:
        return ns.bn_act_fwd(y, state.scale, state.bias, residual, *dual, act, slope), None
    return ns.bn_act_fwd_mask(y, state.scale, state.bias, residual, *dual, act, slope)


class ActGrad(NamedTuple):
    """g [N, K, P, Q] with its sums [2, K] for one or two BNs.

    Where `act` is not identity, g is dz and bn_bwd_apply has yet to apply act'.
    """

    g: Tensor
    sums: Tensor | None
    sums2: Tensor | None
    act: int


def act_backward(
    ns: Any,
    dz: Tensor,
    y: Tensor,
    state: BNState,
    residual: Tensor | None,
    state2: BNState | None,
    mask: Tensor | None,
    act: int,
    slope: float,
    plain: bool,
    with_sums: bool = True,
) -> ActGrad:
    """Backward of act_forward.

    plain: there was no residual. residual: read only for a second BN, or where there is no mask.
    """
    if plain or act == IDENTITY:
        if not with_sums:
            return ActGrad(dz, None, None, act)
        sums = ns.bn_act_bwd_reduce(dz, y, *state[:4], act, slope)
        sums2 = None
        if state2 is not None:
            sums2 = ns.bn_act_bwd_reduce(dz, residual, *state2[:4], IDENTITY, 0.0)
        return ActGrad(dz, sums, sums2, act)
    if state2 is None:
        kept = None if mask is not None else residual
        g, sums = ns.bn_act_bwd_reduce_add(dz, y, *state[:4], kept, mask, act, slope)
        return ActGrad(g, sums, None, IDENTITY)
    g, sums, sums2 = ns.bn_act_bwd_reduce_dual(
        dz, y, *state[:4], residual, *state2[:4], mask, act, slope
    )
    return ActGrad(g, sums, sums2, IDENTITY)


def backward_vectors(
    ns: Any, mode: BNMode, gamma: Tensor | None, state: BNState, sums: Tensor | None
) -> Tensor:
    """A, B, C [3, K] of dy = A * g + B * (y - mean) + C."""
    if state.total is None or sums is None:
        zero = torch.zeros_like(state.scale)
        return torch.stack([state.scale, zero, zero])
    return ns.bn_bwd_finalize(_all_reduce(sums, mode.group), gamma, state.rstd, state.total)


def bn_backward(
    ns: Any,
    mode: BNMode,
    gamma: Tensor | None,
    state: BNState,
    y: Tensor,
    g: Tensor,
    sums: Tensor | None,
    act: int,
    slope: float,
) -> Tensor:
    """dy of the BN layer; with `act`, g is dz and act' is applied on the way."""
    abc = backward_vectors(ns, mode, gamma, state, sums)
    if act == IDENTITY:
        return ns.bn_bwd_apply(g, y, state.mean, abc, None, None, IDENTITY, 0.0)
    return ns.bn_bwd_apply(g, y, state.mean, abc, state.scale, state.bias, act, slope)


def needs_sums(state: BNState, vector_grads: tuple[bool, ...]) -> bool:
    """Fixed statistics and no parameter that wants a gradient: the sums have no reader."""
    return state.total is not None or any(vector_grads)


def vector_gradients(
    state: BNState, sums: Tensor | None, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of gamma, beta, conv_bias [K]. Batch statistics make conv_bias's exactly zero."""
    if sums is None:
        return None, None, None
    dconv_bias = None
    if needed[2]:
        dconv_bias = sums[0] * state.scale if state.total is None else torch.zeros_like(state.scale)
    return sums[1] if needed[0] else None, sums[0] if needed[1] else None, dconv_bias


class BNActGrads(NamedTuple):
    dy: Tensor | None
    dresidual: Tensor | None
    vectors: tuple[Tensor | None, Tensor | None, Tensor | None]


def bn_act_backward(
    ctx: Any, dz: Tensor, saved: tuple[Any, ...], mode: BNMode, needs: tuple[bool, ...]
) -> BNActGrads:
    """Gradients of act(bn(y) + residual); needs: (y, residual, gamma, beta, conv_bias)."""
    y, gamma, mask, residual, *vectors = saved
    state = BNState(*vectors)
    dz = dense_like(dz, y)
    act, slope = ctx.act
    with_sums = needs_sums(state, needs[2:])
    g, sums, _, rest = act_backward(
        ctx.ns, dz, y, state, residual, None, mask, act, slope, ctx.plain, with_sums
    )
    dy = None
    if needs[0]:
        dy = bn_backward(ctx.ns, mode, gamma, state, y, g, sums, rest, slope)
    return BNActGrads(dy, g if needs[1] else None, vector_gradients(state, sums, needs[2:]))
