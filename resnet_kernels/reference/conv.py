"""Convolutions in plain torch. x [N, C, H, W], w [K, C / groups, R, S], y [N, K, P, Q]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .bn import bn_act_fwd, bn_bwd_apply, bn_stats, bn_sums, masked_grad, pre_act
from .common import IDENTITY, apply_act, in_layout_of, per_channel, round_tf32, store, up


def prologue(
    x: Tensor, scale: Tensor | None, bias: Tensor | None, act: int, slope: float
) -> Tensor:
    if scale is None or bias is None:
        return x
    return bn_act_fwd(x, scale, bias, None, None, None, act, slope)


def _operand(x: Tensor, tf32: bool) -> Tensor:
    """A convolution's operand in the dtype products are summed in."""
    return round_tf32(x) if tf32 and x.dtype == torch.float32 else up(x)


def conv_fwd(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_bias: Tensor | None,
    in_act: int,
    in_slope: float,
    out_scale: Tensor | None,
    out_bias: Tensor | None,
    residual: Tensor | None,
    out_act: int,
    out_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    z = _operand(prologue(x, in_scale, in_bias, in_act, in_slope), tf32)
    t = F.conv2d(z, _operand(w.to(x.dtype), tf32), None, stride, padding, dilation, groups)
    if out_scale is not None:
        t = t * per_channel(out_scale)
    if out_bias is not None:
        t = t + per_channel(out_bias)
    if residual is not None:
        t = t + up(residual)
    return in_layout_of(apply_act(t, out_act, out_slope).to(x.dtype), x)


def conv_fwd_stats(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_bias: Tensor | None,
    in_act: int,
    in_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    conv = (stride, padding, dilation, groups, tf32)
    y = conv_fwd(x, w, in_scale, in_bias, in_act, in_slope, None, None, None, 0, 0.0, *conv)
    return y, bn_stats(y)


def _conv_grad(
    dy: Tensor, x: Tensor, w: Tensor, conv: Sequence[Any], output_mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    stride, padding, dilation, groups, tf32 = conv
    operands = (_operand(dy, tf32), _operand(x, tf32), _operand(w.to(x.dtype), tf32))
    return torch.ops.aten.convolution_backward(
        *operands, None, stride, padding, dilation, False, [0, 0], groups, output_mask
    )


def conv_dgrad(
    dy: Tensor,
    w: Tensor,
    branch: Tensor | None,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    conv = (stride, padding, dilation, groups, tf32)
    dx = _conv_grad(dy, dy.new_zeros(input_size), w, conv, [True, False, False])[0]
    if branch is not None:
        dx = dx + up(branch)
    return in_layout_of(dx.to(dy.dtype), dy)


def conv_dgrad_bn(
    dy: Tensor,
    w: Tensor,
    branch: Tensor | None,
    y_prev: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    act: int,
    slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    """The gradient meets the mask before it is rounded: g is stored, dz never is."""
    conv = (stride, padding, dilation, groups, tf32)
    # torch chooses the layout by the filter too; the mask's bits lie in y_prev's.
    dz = in_layout_of(_conv_grad(dy, y_prev, w, conv, [True, False, False])[0], y_prev)
    if branch is not None:
        dz = dz + up(branch)
    t = None if mask is not None else pre_act(y_prev, scale, bias)
    g = store(masked_grad(dz, t, mask, act, slope), y_prev)
    return g, bn_sums(up(g), y_prev, mean, rstd)


def conv_apply_dgrad(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """dy is stored before it is multiplied."""
    dy = bn_bwd_apply(g, y, mean, abc, None, None, IDENTITY, 0.0)
    return conv_dgrad(dy, *rest), dy


def conv_apply_dgrad_bn(
    g: Tensor, y: Tensor, mean: Tensor, abc: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dy = bn_bwd_apply(g, y, mean, abc, None, None, IDENTITY, 0.0)
    return *conv_dgrad_bn(dy, *rest), dy


def conv_wgrad(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_bias: Tensor | None,
    in_act: int,
    in_slope: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    tf32: bool,
) -> Tensor:
    z = prologue(x, in_scale, in_bias, in_act, in_slope)
    conv = (stride, padding, dilation, groups, tf32)
    return store(_conv_grad(dy, z, w, conv, [False, True, False])[1], w)
