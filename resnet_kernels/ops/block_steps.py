"""A residual block on plain tensors: act(bn_n(conv_n(... act(bn_1(conv_1(x))))) + shortcut).

Kept for backward: raw convolution outputs y, BN vectors, one bit an output element. Activations
between the convolutions are rebuilt as prologues of conv_wgrad; block_output rebuilds a block's
output from its y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from . import block_call
from .acts import IDENTITY
from .block_parts import (
    NO_BUFFERS,
    BlockGrads,
    BlockKept,
    BlockNeeds,
    BlockParams,
    BlockSpec,
    LayerGrads,
)
from .bn_layer import (
    BNState,
    act_backward,
    act_forward,
    backward_vectors,
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
    Prologue,
    conv_bn_forward,
    fuses_apply,
    fuses_dgrad,
    residual_for,
)
from .layout import conv_memory_format
from .packed_filter import inference_filter


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
    done = block_call.forward(ns, spec, x, shortcut, params)
    if done is not None:
        return done
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
        w = inference_filter(ns, params.weights[i])
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


class _LayerBackward(NamedTuple):
    """What the backward of layer i of a block reads."""

    ns: Any
    spec: BlockSpec
    params: BlockParams
    kept: BlockKept
    needs: BlockNeeds

    def dy(self, i: int, at: _Incoming) -> Tensor:
        """Gradient of the raw convolution output."""
        layer, state = self.spec.layers[i], self.kept.states[i]
        gamma, y = self.params.vectors[i].gamma, self.kept.ys[i]
        slope = self.spec.act.slope
        return bn_backward(self.ns, layer.mode, gamma, state, y, *at, slope)

    def parts(self, i: int, at: _Incoming) -> tuple[Tensor, ...]:
        """g, y, mean, abc, of which conv_apply_dgrad makes dy."""
        layer, state = self.spec.layers[i], self.kept.states[i]
        gamma = self.params.vectors[i].gamma
        abc = backward_vectors(self.ns, layer.mode, gamma, state, at.sums)
        return at.g, self.kept.ys[i], state.mean, abc

    def vectors(self, i: int, sums: Tensor | None) -> LayerGrads:
        """Gradients of gamma, beta and the convolution's bias."""
        return vector_gradients(self.kept.states[i], sums, self.needs.layers[i][1:4])

    def dw(self, i: int, dy: Tensor | None, h: Tensor, prologue: Prologue) -> Tensor | None:
        """Gradient of the weight, if it is wanted; the convolution's input is prologue(h)."""
        if not self.needs.layers[i][0] or dy is None:
            return None
        return self.ns.conv_wgrad(
            dy, h, self.params.weights[i], *prologue, *self.spec.layers[i].conv
        )

    def input(self, i: int, x: Tensor) -> tuple[Tensor, Prologue]:
        """h and prologue of a layer; the projection reads x, as the first does."""
        if i == 0 or i == len(self.spec.convs):
            return x, NO_PROLOGUE
        return self.kept.ys[i - 1], prologue_of(self.kept.states[i - 1], self.spec.act)

    def below(self, i: int) -> bool:
        """Whether the input's gradient of a layer of the main branch has a reader."""
        return self.needs.x or any(any(need) for need in self.needs.layers[:i])

    def wants_sums(self, i: int) -> bool:
        return needs_sums(self.kept.states[i], self.needs.layers[i][1:4])

    def fused(
        self, i: int, parts: tuple[Tensor, ...], x: Tensor, branch: Tensor | None
    ) -> tuple[_Incoming, Tensor]:
        """What arrives below layer i (dx where i = 0), and dy, made on the way."""
        ns, w, conv = self.ns, self.params.weights[i], self.spec.layers[i].conv
        if i == 0 or i == len(self.spec.convs):
            if branch is not None:
                branch = branch.contiguous(memory_format=conv_memory_format(parts[1], w))
            dx, dy = ns.conv_apply_dgrad(*parts, w, branch, x.shape, *conv)
            return _Incoming(dx, None, IDENTITY), dy
        y, state, act = self.kept.ys[i - 1], self.kept.states[i - 1], self.spec.act
        if self.wants_sums(i - 1):
            g, sums, dy = ns.conv_apply_dgrad_bn(*parts, w, None, y, *state[:4], None, *act, *conv)
            return _Incoming(g, sums, IDENTITY), dy
        dz, dy = ns.conv_apply_dgrad(*parts, w, None, y.shape, *conv)
        return _Incoming(dense_like(dz, y), None, act.act), dy

    def separate(self, i: int, dy: Tensor, x: Tensor, branch: Tensor | None) -> _Incoming:
        """The same from dy."""
        ns, w, conv = self.ns, self.params.weights[i], self.spec.layers[i].conv
        if i == 0 or i == len(self.spec.convs):
            return _Incoming(input_gradient(ns, dy, w, branch, x.shape, conv), None, IDENTITY)
        y, state = self.kept.ys[i - 1], self.kept.states[i - 1]
        return through_act(ns, dy, w, conv, None, y, state, self.spec.act, self.wants_sums(i - 1))

    def run(
        self, i: int, arriving: list[_Incoming], x: Tensor, branch: Tensor | None, below: bool
    ) -> tuple[Tensor | None, _Incoming | None]:
        """The weight's gradient, and what arrives below if it has a reader.

        `arriving` is emptied, and references are dropped as soon as a tensor has been read: what is
        allocated next then takes its place in memory, which is mapped and in the cache.
        """
        at = arriving.pop()
        if below and at.act == IDENTITY and fuses_apply(self.ns, at.g):
            parts = self.parts(i, at)
            del at
            following, dy = self.fused(i, parts, x, branch)
            del parts
            return self.dw(i, dy, *self.input(i, x)), following
        if not below and not self.needs.layers[i][0]:
            return None, None
        dy = self.dy(i, at)
        del at
        dw = self.dw(i, dy, *self.input(i, x))
        return dw, self.separate(i, dy, x, branch) if below else None


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
    done = block_call.backward(ns, spec, dout, x, has_shortcut, params, kept, needs)
    if done is not None:
        return done
    act, slope = spec.act
    ys, states, mask = kept
    last = len(spec.convs) - 1
    residual, state2 = None, None
    if spec.downsample is not None or (mask is None and act != IDENTITY):
        residual, state2 = _skip(spec, x, shortcut, kept)
    step = _LayerBackward(ns, spec, params, kept, needs)
    with_sums = any(map(step.wants_sums, range(last, len(spec.layers))))
    g, sums, sums2, _ = act_backward(
        ns, dense_like(dout, ys[last]), ys[last], states[last], residual, state2, mask, act,
        slope, False, with_sums,
    )  # fmt: skip

    grads: list[LayerGrads] = [(None,) * LAYER_TENSORS] * len(spec.layers)
    branch = None if has_shortcut else g
    if spec.downsample is not None:
        i = last + 1
        # A branch with one channel between lies contiguous whatever x is.
        arriving = [_Incoming(dense_like(g, ys[i]), sums2, IDENTITY)]
        dw, below = step.run(i, arriving, x, None, needs.x)
        grads[i] = (dw, *step.vectors(i, sums2), *NO_BUFFERS)
        branch = None if below is None else below.g

    dshortcut = g if needs.shortcut else None
    arriving = [_Incoming(g, sums, IDENTITY)]
    del g
    for i in range(last, -1, -1):
        vectors = step.vectors(i, arriving[0].sums)
        dw, following = step.run(i, arriving, x, branch if i == 0 else None, step.below(i))
        grads[i] = (dw, *vectors, *NO_BUFFERS)
        if following is None:
            break
        arriving.append(following)
        del following
    return BlockGrads(arriving[0].g if arriving else None, dshortcut, grads)
