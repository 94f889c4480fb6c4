"""A residual block on plain tensors: act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + shortcut).

Kept for backward: raw convolution outputs y, BN vectors, one bit an output element. Activations
between the
convolutions are rebuilt as prologues of conv_wgrad; block_output rebuilds a block's output from its
y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .acts import IDENTITY
from .bn_layer import (
    BNParams,
    BNState,
    act_backward,
    act_forward,
    bn_backward,
    dense_like,
    needs_sums,
    state_from_running,
    vector_gradients,
)
from .layers import (
    LAYER_TENSORS,
    NO_PROLOGUE,
    ActSpec,
    LayerSpec,
    Prologue,
    conv_bn_forward,
    fuses_dgrad,
    residual_for,
)
from .layout import conv_memory_format

LayerGrads = tuple[Tensor | None, ...]


class BlockSpec(NamedTuple):
    """What is not a tensor: the main branch's layers, the projection, the activation."""

    convs: tuple[LayerSpec, ...]
    downsample: LayerSpec | None
    act: ActSpec

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        return self.convs if self.downsample is None else (*self.convs, self.downsample)


class BlockKept(NamedTuple):
    """What forward keeps beside x: y and state per layer, downsample last; the output's mask."""

    ys: list[Tensor]
    states: list[BNState]
    mask: Tensor | None

    def flat(self) -> list[Tensor | None]:
        """As a list for save_for_backward; kept_from_flat is the inverse."""
        rows: list[Tensor | None] = [self.mask]
        for y, state in zip(self.ys, self.states, strict=True):
            rows += [y, *state]
        return rows


_KEPT_PER_LAYER = 1 + len(BNState._fields)


def kept_size(spec: BlockSpec) -> int:
    return 1 + _KEPT_PER_LAYER * len(spec.layers)


def kept_from_flat(flat: Sequence[Any]) -> BlockKept:
    rows = [flat[i : i + _KEPT_PER_LAYER] for i in range(1, len(flat), _KEPT_PER_LAYER)]
    return BlockKept([row[0] for row in rows], [BNState(*row[1:]) for row in rows], flat[0])


class BlockParams(NamedTuple):
    """Tensors of a block's layers, downsample last."""

    weights: list[Tensor]
    vectors: list[BNParams]


def params_from_flat(flat: Sequence[Any]) -> BlockParams:
    """The inverse of chaining Layer.tensors()."""
    rows = [flat[i : i + LAYER_TENSORS] for i in range(0, len(flat), LAYER_TENSORS)]
    return BlockParams([row[0] for row in rows], [BNParams(*row[1:]) for row in rows])


def prologue_of(state: BNState, act: ActSpec) -> Prologue:
    return state.scale, state.bias, act.act, act.slope


def _skip(
    spec: BlockSpec, x: Tensor, shortcut: Tensor | None, kept: BlockKept
) -> tuple[Tensor, BNState | None]:
    """What is added at the end, in the layout of the last y, and its BN if it is a projection."""
    last = len(spec.convs) - 1
    if spec.downsample is not None:
        return dense_like(kept.ys[last + 1], kept.ys[last]), kept.states[last + 1]
    return dense_like(x if shortcut is None else shortcut, kept.ys[last]), None


def block_forward(
    ns: Any, spec: BlockSpec, x: Tensor, shortcut: Tensor | None, params: BlockParams
) -> tuple[Tensor, BlockKept]:
    ys: list[Tensor] = []
    states: list[BNState] = []
    h, prologue = x, NO_PROLOGUE
    for i, layer in enumerate(spec.layers):
        if i == len(spec.convs):
            h, prologue = x, NO_PROLOGUE
        y, state = conv_bn_forward(ns, h, params.weights[i], params.vectors[i], layer, prologue)
        ys.append(y)
        states.append(state)
        h, prologue = y, prologue_of(state, spec.act)
    kept = BlockKept(ys, states, None)
    last = len(spec.convs) - 1
    residual, state2 = _skip(spec, x, shortcut, kept)
    out, mask = act_forward(ns, ys[last], states[last], residual, state2, *spec.act)
    return out, kept._replace(mask=mask)


def block_output(
    ns: Any, spec: BlockSpec, x: Tensor, shortcut: Tensor | None, kept: BlockKept
) -> Tensor:
    """The block's output again, bit for bit, from what forward kept: one pass, no convolution."""
    last = len(spec.convs) - 1
    residual, state2 = _skip(spec, x, shortcut, kept)
    dual = (None, None) if state2 is None else (state2.scale, state2.bias)
    state = kept.states[last]
    return ns.bn_act_fwd(kept.ys[last], state.scale, state.bias, residual, *dual, *spec.act)


def block_inference(
    ns: Any, spec: BlockSpec, x: Tensor, shortcut: Tensor | None, params: BlockParams
) -> Tensor:
    """The block without gradients; fixed statistics go into the convolutions' epilogues."""
    if any(layer.mode.batch_stats for layer in spec.layers):
        return block_forward(ns, spec, x, shortcut, params)[0]
    last = len(spec.convs) - 1
    states = [
        state_from_running(ns, layer.mode, vectors)
        for layer, vectors in zip(spec.layers, params.vectors, strict=True)
    ]

    def conv(h: Tensor, i: int, residual: Tensor | None, act: ActSpec) -> Tensor:
        affine = (states[i].scale, states[i].bias)
        w = params.weights[i]
        return ns.conv_fwd(
            h, w, *NO_PROLOGUE, *affine, residual_for(residual, h, w), *act, *spec.layers[i].conv
        )

    residual = x if shortcut is None else shortcut
    if spec.downsample is not None:
        residual = conv(x, last + 1, None, ActSpec(IDENTITY, 0.0))
    h = x
    for i in range(last):
        h = conv(h, i, None, spec.act)
    return conv(h, last, residual, spec.act)


class BlockNeeds(NamedTuple):
    """Which gradients are wanted: of x, of the shortcut, of each layer's tensors."""

    x: bool
    shortcut: bool
    layers: list[tuple[bool, ...]]


def needs_from_flat(x: bool, shortcut: bool, flat: Sequence[bool]) -> BlockNeeds:
    rows = [tuple(flat[i : i + LAYER_TENSORS]) for i in range(0, len(flat), LAYER_TENSORS)]
    return BlockNeeds(x, shortcut, rows)


class BlockGrads(NamedTuple):
    dx: Tensor | None
    dshortcut: Tensor | None
    layers: list[LayerGrads]


class _Incoming(NamedTuple):
    """Gradient arriving at a BN: g and its sums; act' is still to be applied where act is given."""

    g: Tensor
    sums: Tensor | None
    act: int


def through_act(
    ns: Any,
    dy: Tensor,
    w: Tensor,
    conv: Any,
    branch: Tensor | None,
    y_prev: Tensor,
    state: BNState,
    act: ActSpec,
    with_sums: bool,
) -> _Incoming:
    """dgrad of a convolution whose input is act(bn(y_prev)), and the sums of that BN."""
    if with_sums and fuses_dgrad(ns, dy):
        branch = None if branch is None else dense_like(branch, y_prev)
        g, sums = ns.conv_dgrad_bn(dy, w, branch, y_prev, *state[:4], None, *act, *conv)
        return _Incoming(g, sums, IDENTITY)
    dz = dense_like(input_gradient(ns, dy, w, branch, y_prev.shape, conv), y_prev)
    sums = ns.bn_act_bwd_reduce(dz, y_prev, *state[:4], *act) if with_sums else None
    return _Incoming(dz, sums, act.act)


def input_gradient(
    ns: Any, dy: Tensor, w: Tensor, branch: Tensor | None, size: Sequence[int], conv: Any
) -> Tensor:
    if branch is not None:
        branch = branch.contiguous(memory_format=conv_memory_format(dy, w))
    return ns.conv_dgrad(dy, w, branch, size, *conv)


def layer_backward(
    ns: Any,
    layer: LayerSpec,
    incoming: _Incoming,
    slope: float,
    y: Tensor,
    state: BNState,
    h: Tensor,
    prologue: Prologue,
    w: Tensor,
    gamma: Tensor | None,
    needs: tuple[bool, ...],
    need_dy: bool,
) -> tuple[Tensor | None, LayerGrads]:
    """(dy, gradients of the layer's tensors) of y = conv(prologue(h)) followed by BN."""
    g, sums, act = incoming
    dy = dw = None
    if need_dy or needs[0]:
        dy = bn_backward(ns, layer.mode, gamma, state, y, g, sums, act, slope)
    if needs[0]:
        dw = ns.conv_wgrad(dy, h, w, *prologue, *layer.conv)
    return dy, (dw, *vector_gradients(state, sums, needs[1:4]), None, None, None)


def block_backward(
    ns: Any,
    spec: BlockSpec,
    dout: Tensor,
    x: Tensor,
    shortcut: Tensor | None,
    has_shortcut: bool,
    params: BlockParams,
    kept: BlockKept,
    needs: BlockNeeds,
) -> BlockGrads:
    """Backward of block_forward. shortcut: read only by activations that leave no mask."""
    act, slope = spec.act
    ys, states, mask = kept
    last = len(spec.convs) - 1
    residual, state2 = None, None
    if spec.downsample is not None or (mask is None and act != IDENTITY):
        residual, state2 = _skip(spec, x, shortcut, kept)
    with_sums = any(
        needs_sums(state, need[1:4])
        for state, need in zip(states[last:], needs.layers[last:], strict=True)
    )
    g, sums, sums2, _ = act_backward(
        ns, dense_like(dout, ys[last]), ys[last], states[last], residual, state2, mask, act,
        slope, False, with_sums,
    )  # fmt: skip

    grads: list[LayerGrads] = [(None,) * LAYER_TENSORS] * len(spec.layers)
    branch = None if has_shortcut else g
    if spec.downsample is not None:
        i = last + 1
        dyd, grads[i] = layer_backward(
            ns, spec.downsample, _Incoming(g, sums2, IDENTITY), slope, ys[i], states[i], x,
            NO_PROLOGUE, params.weights[i], params.vectors[i].gamma, needs.layers[i], needs.x,
        )  # fmt: skip
        if needs.x and dyd is not None:
            branch = ns.conv_dgrad(dyd, params.weights[i], None, x.shape, *spec.downsample.conv)

    dx, incoming = None, _Incoming(g, sums, IDENTITY)
    for i in range(last, -1, -1):
        below = needs.x or any(any(need) for need in needs.layers[:i])
        prologue = prologue_of(states[i - 1], spec.act) if i else NO_PROLOGUE
        w, conv = params.weights[i], spec.convs[i].conv
        dy, grads[i] = layer_backward(
            ns, spec.convs[i], incoming, slope, ys[i], states[i], ys[i - 1] if i else x, prologue,
            w, params.vectors[i].gamma, needs.layers[i], below,
        )  # fmt: skip
        if not below or dy is None:
            break
        if i == 0:
            dx = input_gradient(ns, dy, w, branch, x.shape, conv)
            break
        wants = needs_sums(states[i - 1], needs.layers[i - 1][1:4])
        incoming = through_act(ns, dy, w, conv, None, ys[i - 1], states[i - 1], spec.act, wants)
    return BlockGrads(dx, g if needs.shortcut else None, grads)
