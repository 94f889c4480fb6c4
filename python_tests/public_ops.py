"""One small call of every public op, for tests that ask the same of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import inputs
import torch
from shapes import ConvShape
from torch import Tensor

from resnet_kernels import ops

SIZE = (2, 4, 5, 5)
VECTORS = ("gamma", "beta", "running_mean", "running_var")


def _layer(rng: torch.Generator, dtype: torch.dtype, i: int, r: int = 3) -> dict[str, Tensor]:
    shape = ConvShape(1, 4, 1, 1, 4, r, r)
    own = {"weight": inputs.weight(rng, shape, dtype), **inputs.bn_tensors(rng, 4, dtype)}
    return {f"{name}_{i}": value for name, value in own.items()}


def _conv_bn(t: dict[str, Tensor], i: int, training: bool, **static: Any) -> ops.ConvBN:
    own = {n: t[f"{n}_{i}"] for n in ("weight", *VECTORS)}
    return ops.ConvBN(**own, training=training, **static)


def _bn(t: dict[str, Tensor], i: int, training: bool) -> ops.BN:
    return ops.BN(**{n: t[f"{n}_{i}"] for n in VECTORS}, training=training)


def _single(t: dict[str, Tensor], training: bool) -> dict[str, Any]:
    return {**_conv_bn(t, 0, training, padding=1)._asdict()}


def _bn_act(t: dict[str, Tensor], training: bool, **kw: Any) -> Tensor:
    return ops.bn_act(t["x"], **_bn(t, 0, training)._asdict(), **kw)


def _convs(t: dict[str, Tensor], training: bool) -> list[ops.ConvBN]:
    return [_conv_bn(t, i, training, padding=1) for i in range(2)]


def _preact(t: dict[str, Tensor], training: bool, **kw: Any) -> Tensor:
    bns = [_bn(t, i, training) for i in range(2)]
    convs = [ops.Conv(t[f"weight_{i}"], padding=1) for i in range(2)]
    return ops.preact_block(t["x"], bns, convs, ops.Conv(t["weight_2"], padding=1), **kw)


def _stage(t: dict[str, Tensor], training: bool, act: str, **kw: Any) -> Tensor:
    convs = _convs(t, training)
    stem = _conv_bn(t, 2, training, padding=1)
    block = ops.Block(convs, act=act)
    return ops.residual_stage(t["x"], [block, block], stem=stem, stem_act=act, **kw)


# name -> function of (tensors, training, act=..., backend=...)
CALLS: dict[str, Callable[..., Tensor]] = {
    "conv_bn_act": lambda t, training, **kw: ops.conv_bn_act(t["x"], **_single(t, training), **kw),
    "conv_bn_act-residual": lambda t, training, **kw: ops.conv_bn_act(
        t["x"], **_single(t, training), residual=t["x"], **kw
    ),
    "bn_act": _bn_act,
    "bn_act-residual": lambda t, training, **kw: _bn_act(t, training, residual=t["x2"], **kw),
    "conv_act": lambda t, training, **kw: ops.conv_act(
        t["x"], t["weight_0"], t["beta_0"], residual=t["x2"], padding=1, **kw
    ),
    "residual_block": lambda t, training, **kw: ops.residual_block(
        t["x"], _convs(t, training), **kw
    ),
    "residual_block-down": lambda t, training, **kw: ops.residual_block(
        t["x"], _convs(t, training), _conv_bn(t, 2, training, padding=1), **kw
    ),
    "preact_block": _preact,
    "stem": lambda t, training, **kw: ops.stem(
        t["x"], _conv_bn(t, 0, training, padding=1), pool=(3, 2, 1), **kw
    ),
    "residual_stage": _stage,
    "max_pool": lambda t, training, act=None, **kw: ops.max_pool(t["x"], 3, 2, 1, **kw),
    "avg_pool": lambda t, training, act=None, **kw: ops.avg_pool(t["x"], **kw),
}


def tensors_for(rng: torch.Generator, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Everything a call of CALLS may use."""
    t = {"x": inputs.activation(rng, SIZE, dtype), "x2": inputs.activation(rng, SIZE, dtype)}
    for i in range(3):
        t |= _layer(rng, dtype, i)
    return t


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fresh copies; all but running statistics require gradients."""
    return {
        n: v.detach().clone().requires_grad_(not n.startswith("running"))
        for n, v in tensors.items()
    }
