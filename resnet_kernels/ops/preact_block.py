"""preact_block: a pre-activation residual block (He et al. 2016) as one differentiable op.

z = act(bn_1(x)); h_1 = conv_1(z); h_i = conv_i(act(bn_i(h_{i-1}))); out = h_n + (conv_s(z) or x).
Every z is rebuilt as a prologue, so x and the raw h_1 ... h_{n-1} are all that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .block_steps import prologue_of, through_act
from .bn_layer import (
    BNMode,
    BNParams,
    BNState,
    bn_backward,
    bn_state,
    needs_sums,
    state_from_running,
    state_from_stats,
    vector_gradients,
)
from .fakes import conv_out_size, stats_dtype
from .layers import (
    BN,
    NO_EPILOGUE,
    ActSpec,
    Conv,
    ConvArgs,
    act_spec,
    apply,
    as_dense,
    autocasts,
    bn_mode,
    bn_params,
    conv_geometry,
    residual_for,
    vector_for,
    wants_grad,
    weight_for,
)
from .layout import conv_memory_format
from .library import namespace
from .packed_filter import inference_filter


class PreactSpec(NamedTuple):
    """BN i stands in front of convolution i; `shortcut` is the projection's geometry."""

    modes: tuple[BNMode, ...]
    convs: tuple[ConvArgs, ...]
    shortcut: ConvArgs | None
    act: ActSpec


class PreactTensors(NamedTuple):
    """Weights, the projection's last; biases of the last convolution and of the projection; BNs.

    The bias of any other convolution is the conv_bias of the BN behind it.
    """

    weights: list[Any]
    biases: list[Any]
    params: list[BNParams]

    def flat(self) -> list[Any]:
        return [*self.weights, *self.biases, *(v for p in self.params for v in p)]


def _from_flat(spec: PreactSpec, flat: Sequence[Any]) -> PreactTensors:
    n = len(spec.convs) + (spec.shortcut is not None)
    size = len(BNParams._fields)
    params = [BNParams(*flat[i : i + size]) for i in range(n + 2, len(flat), size)]
    return PreactTensors(list(flat[:n]), list(flat[n : n + 2]), params)


def _forward(
    ns: Any, spec: PreactSpec, x: Tensor, tensors: PreactTensors
) -> tuple[Tensor, list[Tensor], list[BNState]]:
    """(output, raw h_1 ... h_{n-1}, states)."""
    weights, biases, params = tensors
    states = [bn_state(ns, spec.modes[0], params[0], x)]
    hs: list[Tensor] = []
    h, last = x, len(spec.convs) - 1
    for i in range(last):
        prologue = prologue_of(states[i], spec.act)
        mode = spec.modes[i + 1]
        if mode.batch_stats:
            h, stats = ns.conv_fwd_stats(h, weights[i], *prologue, *spec.convs[i])
            states.append(state_from_stats(ns, mode, params[i + 1], stats))
        else:
            h = ns.conv_fwd(h, weights[i], *prologue, *NO_EPILOGUE, *spec.convs[i])
            states.append(state_from_running(ns, mode, params[i + 1]))
        hs.append(h)
    skip = x
    if spec.shortcut is not None:
        prologue = prologue_of(states[0], spec.act)
        skip = ns.conv_fwd(x, weights[-1], *prologue, None, biases[1], None, 0, 0.0, *spec.shortcut)
    w = weights[last]
    out = ns.conv_fwd(
        h, w, *prologue_of(states[last], spec.act), None, biases[0],
        residual_for(skip, h, w), 0, 0.0, *spec.convs[last],
    )  # fmt: skip
    return out, hs, states


class _PreactBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ns: Any, spec: PreactSpec, x: Tensor, *flat: Tensor | None) -> Tensor:
        x = as_dense(x)
        out, hs, states = _forward(ns, spec, x, _from_flat(spec, flat))
        ctx.ns, ctx.spec, ctx.layout = ns, spec, conv_memory_format(out, out)
        ctx.save_for_backward(x, *flat, *hs, *(v for state in states for v in state))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        spec: PreactSpec = ctx.spec
        x, *rest = ctx.saved_tensors
        n, width = len(spec.convs), len(BNState._fields)
        size = n + (spec.shortcut is not None) + 2 + n * len(BNParams._fields)
        hs, vectors = [x, *rest[size : size + n - 1]], rest[size + n - 1 :]
        states = [BNState(*vectors[i * width : (i + 1) * width]) for i in range(n)]
        need_x, *need_flat = ctx.needs_input_grad[2:]
        step = _Backward(
            ctx.ns, spec, _from_flat(spec, rest[:size]), hs, states, need_x,
            _from_flat(spec, need_flat),
        )  # fmt: skip
        dx, grads = step.run(dout.contiguous(memory_format=ctx.layout))
        return None, None, dx, *grads.flat()


class _Backward(NamedTuple):
    """Backward of _forward. hs: the input of each BN (x, h_1, ...); need: gradients wanted."""

    ns: Any
    spec: PreactSpec
    tensors: PreactTensors
    hs: list[Tensor]
    states: list[BNState]
    need_x: bool
    need: PreactTensors

    def wgrad(self, dy: Tensor, i: int, w: Tensor, conv: ConvArgs) -> Tensor:
        """Gradient of a weight behind BN i."""
        prologue = prologue_of(self.states[i], self.spec.act)
        return self.ns.conv_wgrad(dy, self.hs[i], w, *prologue, *conv)

    def wanted_at(self, i: int) -> bool:
        """Whether the gradient of the activation behind BN i has a reader."""
        above = any(self.need.weights[:i]) or any(any(p[:3]) for p in self.need.params[: i + 1])
        return above or self.need_x

    def run(self, dout: Tensor) -> tuple[Tensor | None, PreactTensors]:
        """(dx, gradients in the order of the tensors)."""
        ns, spec, hs = self.ns, self.spec, self.hs
        dw: list[Any] = [None] * len(self.tensors.weights)
        vectors = [BNParams(*[None] * len(BNParams._fields)) for _ in hs]
        biases: list[Any] = [None, None]
        for j in range(2):
            if self.need.biases[j]:
                biases[j] = dout.sum((0, 2, 3), dtype=stats_dtype(dout.dtype))

        branch = None
        if spec.shortcut is not None:
            w = self.tensors.weights[-1]
            if self.need.weights[-1]:
                dw[-1] = self.wgrad(dout, 0, w, spec.shortcut)
            if self.wanted_at(0):
                branch = ns.conv_dgrad(dout, w, None, hs[0].shape, *spec.shortcut)

        dy = dout
        for i in range(len(hs) - 1, -1, -1):
            w, conv, state = self.tensors.weights[i], spec.convs[i], self.states[i]
            if self.need.weights[i]:
                dw[i] = self.wgrad(dy, i, w, conv)
            if not self.wanted_at(i):
                break
            wants = tuple(bool(v) for v in self.need.params[i][:3])
            g, sums, act = through_act(
                ns, dy, w, conv, None if i else branch, hs[i], state, spec.act,
                needs_sums(state, wants),
            )  # fmt: skip
            vectors[i] = BNParams(*vector_gradients(state, sums, wants), None, None, None)
            gamma = self.tensors.params[i].gamma
            dy = bn_backward(ns, spec.modes[i], gamma, state, hs[i], g, sums, act, spec.act.slope)
        grads = PreactTensors(dw, biases, vectors)
        if not self.need_x:
            return None, grads
        return dy if spec.shortcut is not None else dy.add_(dout), grads


def _checked(
    ns: Any,
    x: Tensor,
    bns: Sequence[BN],
    convs: Sequence[Conv],
    shortcut: Conv | None,
    act: ActSpec,
) -> tuple[PreactSpec, PreactTensors]:
    for name, value in (("bns", bns), ("convs", convs)):
        if not isinstance(value, Sequence):
            raise TypeError(f"{name}: expected a sequence, got {type(value).__name__}")
    if len(bns) != len(convs) or not convs:
        raise ValueError(f"bns: expected as many as convs and at least 1, got {len(bns)}")
    all_convs = [*convs] if shortcut is None else [*convs, shortcut]
    geometries, weights, sizes = [], [], [list(x.shape)]
    for i, conv in enumerate(all_convs):
        if not isinstance(conv, Conv):
            raise TypeError(f"convs[{i}]: expected a Conv, got {type(conv).__name__}")
        size = sizes[0] if i == len(convs) else sizes[-1]
        checks.weight(conv.weight, size, x, conv.groups)
        checks.vector(conv.bias, conv.weight.shape[0], x, "bias")
        geometry, extra = conv_geometry(ns, x, conv.weight, conv)
        if extra != (0, 0):
            raise ValueError(f"convs[{i}].padding: expected the same padding on both sides")
        sizes.append(conv_out_size(size, conv.weight.shape, *geometry[:3]))
        checks.image_covers_kernel(sizes[-1], "weight")
        geometries.append(geometry)
        weights.append(weight_for(conv.weight, x))
    skip_size = sizes[0] if shortcut is None else sizes[-1]
    if sizes[len(convs)] != skip_size:
        raise ValueError(
            f"shortcut: expected a result of size {sizes[len(convs)]}, got {skip_size}"
        )

    modes, params = [], []
    for i, bn in enumerate(bns):
        if not isinstance(bn, BN):
            raise TypeError(f"bns[{i}]: expected a BN, got {type(bn).__name__}")
        checks.batch_norm(bn, sizes[i][1], x)
        modes.append(bn_mode(bn, sizes[i]))
        params.append(bn_params(bn, convs[i - 1].bias if i else None, x, modes[i]))
    biases = [vector_for(convs[-1].bias, x), vector_for(shortcut.bias, x) if shortcut else None]
    projection = geometries.pop() if shortcut is not None else None
    spec = PreactSpec(tuple(modes), tuple(geometries), projection, act)
    return spec, PreactTensors(weights, biases, params)


@autocasts
def preact_block(
    x: Tensor,
    bns: Sequence[BN],
    convs: Sequence[Conv],
    shortcut: Conv | None = None,
    *,
    act: str | None = "relu",
    negative_slope: float = 0.01,
    backend: str | None = None,
) -> Tensor:
    """A pre-activation residual block of any number of BN-act-conv steps (He et al. 2016).

    Equivalent to: z = act(bns[0](x)); h = convs[0](z); h = convs[i](act(bns[i](h))) for the others;
        h + (shortcut(z) if shortcut is given else x)

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        bns, convs: BN and Conv bundles, bns[i] in front of convs[i].
        shortcut: Conv bundle of the projection, or None for the identity.
    Returns: (N, K, P, Q), dtype and memory format of x. Keeps x, the raw output of each convolution
        but the last, and vectors (K,) for backward.
    Raises: ValueError or TypeError naming the argument, the expected and the given value. A second
        derivative raises.
    """
    checks.activation(x, "x")
    ns = namespace(backend)
    spec, tensors = _checked(ns, x, bns, convs, shortcut, act_spec(act, negative_slope))
    return run_preact_block(x, ns, spec, tensors)


@autocasts
def run_preact_block(x: Tensor, ns: Any, spec: PreactSpec, tensors: PreactTensors) -> Tensor:
    """preact_block of checked arguments."""
    flat = tensors.flat()
    if wants_grad(x, *flat):
        return apply(_PreactBlock, ns, spec, x, *flat)
    weights = [inference_filter(ns, w) for w in tensors.weights]
    return _forward(ns, spec, as_dense(x), tensors._replace(weights=weights))[0]
