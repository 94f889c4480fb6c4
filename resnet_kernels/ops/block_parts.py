"""What the steps of a residual block hand to each other: layers, what is kept, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .bn_layer import BNParams, BNState
from .layers import LAYER_TENSORS, ActSpec, LayerSpec

LayerGrads = tuple[Tensor | None, ...]
# The gradients of running statistics and num_batches_tracked.
NO_BUFFERS = (None, None, None)


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
