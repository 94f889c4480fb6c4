"""Finds chains of layers in a traced graph: act(bn(conv(x)) + residual) with parts absent.

A value that disappears into a fused op has one user; nothing in between writes to what the op reads,
because the op runs where its last node stood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import fx

from .kinds import Act, Graph


@dataclasses.dataclass(frozen=True)
class Unit:
    """act(bn(conv(x)) + residual), any part but one absent; `nodes` in graph order."""

    x: fx.Node
    conv: fx.Node | None
    bn: fx.Node | None
    residual: fx.Node | None
    act: Act | None
    nodes: tuple[fx.Node, ...]

    @property
    def out(self) -> fx.Node:
        return self.nodes[-1]

    @property
    def is_layer(self) -> bool:
        """conv and bn, nothing added."""
        return self.conv is not None and self.bn is not None and self.residual is None

    @property
    def op(self) -> str:
        return "_".join(
            name for name, part in (("conv", self.conv), ("bn", self.bn)) if part is not None
        ) + ("_add" if self.residual is not None else "") + ("_act" if self.act else "")  # fmt: skip


def find_units(graph: Graph) -> list[Unit]:
    """Disjoint units; the search goes backwards, so that the longest ones are found first."""
    units: list[Unit] = []
    taken: set[fx.Node] = set()
    for tail in reversed(graph.nodes):
        if tail in taken:
            continue
        for unit in _units_ending_at(graph, tail):
            inputs = (unit.x,) if unit.residual is None else (unit.x, unit.residual)
            if taken.isdisjoint(unit.nodes) and is_safe(graph, unit.nodes, inputs):
                units.append(unit)
                taken.update(unit.nodes)
                break
    return units


def _units_ending_at(graph: Graph, tail: fx.Node) -> Iterator[Unit]:
    """Units whose last node is `tail`, longest first."""
    act = graph.act(tail)
    if act is None:
        yield from _units_adding_at(graph, tail, None)
        if graph.kind(tail) == "bn":
            yield from (unit for unit in _layers(graph, tail) if unit.conv is not None)
        return
    inner = act.operand
    if len(inner.users) != 1:
        return
    for unit in (*_units_adding_at(graph, inner, act), *_layers(graph, inner)):
        yield dataclasses.replace(unit, act=act, nodes=(*unit.nodes, tail))


def _units_adding_at(graph: Graph, node: fx.Node, act: Act | None) -> Iterator[Unit]:
    """Units whose addition is `node`; of two possible main branches the longer one comes first."""
    add = graph.add(node)
    if add is None:
        return
    first, second = add.operands
    choices = [(first, second)] if add.in_place else [(first, second), (second, first)]
    for main, residual in sorted(choices, key=lambda choice: -_depth(graph, choice[0])):
        if len(main.users) != 1:
            continue
        for unit in _layers(graph, main):
            if act is not None or unit.bn is not None:
                yield dataclasses.replace(unit, residual=residual, nodes=(*unit.nodes, node))


def _layers(graph: Graph, node: fx.Node) -> Iterator[Unit]:
    """The layer that ends with `node`: convolution and batch norm, or one of them."""
    x = node.args[0] if node.args else None
    if graph.kind(node) not in ("conv", "bn") or not isinstance(x, fx.Node):
        return
    if graph.kind(node) == "conv":
        yield Unit(x, node, None, None, None, (node,))
        return
    inner = x.args[0] if x.args else None
    if graph.kind(x) == "conv" and len(x.users) == 1 and isinstance(inner, fx.Node):
        yield Unit(inner, x, node, None, None, (x, node))
    yield Unit(x, None, node, None, None, (node,))


def _depth(graph: Graph, node: fx.Node) -> int:
    """Number of layers and activations that lead to node alone."""
    depth = 0
    while len(node.users) == 1:
        act = graph.act(node)
        if act is not None:
            node = act.operand
        elif graph.kind(node) in ("conv", "bn") and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        else:
            break
        depth += 1
    return depth


def is_safe(graph: Graph, nodes: tuple[fx.Node, ...], inputs: tuple[fx.Node, ...]) -> bool:
    """Whether `nodes` may all run where the last one stands: nothing else interferes until then."""
    inside = set(nodes)
    positions = [graph.position[node] for node in nodes]
    reads = frozenset().union(*(graph.roots(node) for node in inputs))
    batch_norms = {graph.leaf(node) for node in nodes if graph.kind(node) == "bn"}
    for node in graph.nodes[min(positions) : max(positions)]:
        if node in inside:
            continue
        if graph.changed(node) & reads or graph.leaf(node) in batch_norms - {None}:
            return False
    return True
