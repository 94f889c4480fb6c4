"""Finds in a traced graph what runs as one op: residual blocks, the stem, pooling, layer chains."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from torch import fx, nn

from .kinds import NORM_ONLY, Graph, hooked, is_layer, is_norm_act, kind_of_class
from .units import Unit, find_units, is_safe


class Preact(NamedTuple):
    """What a pre-activation block has beside its layers."""

    last: fx.Node
    projection: fx.Node | None
    add: fx.Node


@dataclasses.dataclass(frozen=True)
class Group:
    """Nodes that run as one op at the place of the last one."""

    op: str
    x: fx.Node
    units: tuple[Unit, ...]
    downsample: Unit | None = None
    shortcut: fx.Node | None = None
    pool: fx.Node | None = None
    preact: Preact | None = None
    stem: Group | None = None
    blocks: tuple[Group, ...] = ()

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """In graph order."""
        parts = [*self.units, *([self.downsample] if self.downsample else [])]
        found = {node for unit in parts for node in unit.nodes}
        found.update(node for node in (self.pool, *(self.preact or ())) if node is not None)
        parts_of_stage = (*self.blocks, *([self.stem] if self.stem else []))
        found.update(node for group in parts_of_stage for node in group.nodes)
        return tuple(sorted(found))

    @property
    def out(self) -> fx.Node:
        if self.preact is not None:
            return self.preact.add
        return self.pool if self.pool is not None else self.units[-1].out

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """The values from outside that the op reads."""
        extra = [self.shortcut, *(unit.residual for unit in self.units)]
        inside = set(self.nodes)
        return (self.x, *(node for node in extra if node is not None and node not in inside))


def split_norm_acts(module: nn.Module, graph: fx.Graph) -> set[str]:
    """Makes each call of a BatchNormAct2d two: the norm and its activation.

    Returns: paths of the modules in it, on which the plan then relies.
    """
    inner: set[str] = set()
    for node in list(graph.nodes):
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        path = str(node.target)
        if not is_norm_act(module.get_submodule(path)):
            continue
        with graph.inserting_after(node):
            act = graph.call_module(f"{path}.act")
        node.replace_all_uses_with(act)
        act.args = (node,)
        node.meta[NORM_ONLY] = True
        inner |= {f"{path}.act", f"{path}.drop"}
    return inner


def drop_identities(module: nn.Module, graph: fx.Graph) -> list[str]:
    """Takes nn.Identity calls out of the graph; returns the paths of the modules."""
    dropped = []
    for node in list(graph.nodes):
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        leaf = module.get_submodule(str(node.target))
        if kind_of_class(type(leaf)) == "identity" and not hooked(leaf):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            dropped.append(str(node.target))
    return dropped


def children_behind_stems(graph: Graph, groups: list[Group]) -> tuple[str, ...]:
    """Paths of the children that alone get the output of a layer that may start a stage."""
    found = []
    for group in groups:
        users = list(group.out.users)
        if not starts_stage(group) or len(users) != 1 or users[0].op != "call_module":
            continue
        if users[0].args == (group.out,) and not users[0].kwargs:
            found.append(str(users[0].target))
    return tuple(found)


def find_groups(graph: Graph, stages: bool = False) -> list[Group]:
    """All groups, in the order of their last nodes; with `stages` rows of blocks as one."""
    units = find_units(graph)
    by_out = {unit.out: unit for unit in units}
    groups: list[Group] = []
    taken: set[Unit] = set()
    blocks = (_block(graph, unit, by_out, taken) for unit in units)
    preacts = (_preact(graph, node, by_out, taken) for node in graph.nodes)
    for group in (*blocks, *preacts):
        if group is not None:
            groups.append(group)
            taken.update(group.units, [group.downsample] if group.downsample else [])
    groups += [Group(unit.op, unit.x, (unit,)) for unit in units if unit not in taken]
    groups = sorted(_with_pools(graph, groups), key=lambda group: graph.position[group.out])
    return _with_stages(graph, groups) if stages else groups


def _block(graph: Graph, last: Unit, by_out: dict[fx.Node, Unit], taken: set[Unit]) -> Group | None:
    """The residual block that ends with `last`."""
    if None in (last.conv, last.bn, last.residual, last.act):
        return None
    chain = [last]
    while chain[0].x is not last.residual:
        unit = by_out.get(chain[0].x)
        if unit is None or unit in taken or not unit.is_layer or len(unit.out.users) != 1:
            break
        if unit.act is None or unit.act[:2] != last.act[:2]:  # type: ignore[index]
            break
        chain.insert(0, unit)
    if len(chain) < 2:
        return None
    x, residual = chain[0].x, last.residual
    assert residual is not None
    downsample = by_out.get(residual)
    if not (
        downsample is not None
        and downsample.is_layer
        and downsample.act is None
        and downsample not in taken
        and downsample.x is x
        and len(residual.users) == 1
    ):
        downsample = None
    shortcut = None if residual is x or downsample is not None else residual
    op = {2: "basic_block", 3: "bottleneck"}.get(len(chain), "residual_block")
    group = Group(op, x, tuple(chain), downsample, shortcut)
    safe = _distinct(graph, group) and is_safe(graph, group.nodes, group.inputs)
    return group if safe else None


def _preact(
    graph: Graph, node: fx.Node, by_out: dict[fx.Node, Unit], taken: set[Unit]
) -> Group | None:
    """The pre-activation block that ends with the addition `node`: bn, act, conv, ..., add."""
    add = graph.add(node)
    if add is None:
        return None
    for main, skip in (add.operands, add.operands[::-1]):
        if (
            graph.kind(main) != "conv"
            or len(main.users) != 1
            or (add.in_place and main is not add.operands[0])
        ):
            continue
        units: list[Unit] = []
        h: Any = main.args[0]
        while (unit := by_out.get(h)) is not None and _continues(unit, units, taken):
            units.insert(0, unit)
            h = unit.x
            if unit.conv is None:
                break
        if not units or units[0].conv is not None:
            continue
        z, x = units[0].out, units[0].x
        projection = skip if graph.kind(skip) == "conv" and skip.args[0] is z else None
        if projection is None and skip is not x:
            continue
        expected = {main if len(units) == 1 else units[1].conv, projection} - {None}
        if set(z.users) != expected or (projection is not None and len(skip.users) != 1):
            continue
        group = Group("preact_block", x, tuple(units), preact=Preact(main, projection, node))
        if _distinct(graph, group) and is_safe(graph, group.nodes, group.inputs):
            return group
    return None


def _continues(unit: Unit, later: list[Unit], taken: set[Unit]) -> bool:
    """Whether `unit` can stand in front of the later units of a pre-activation block."""
    if unit in taken or unit.bn is None or unit.residual is not None or unit.act is None:
        return False
    if later and unit.act[:2] != later[0].act[:2]:  # type: ignore[index]
        return False
    return unit.conv is None or len(unit.out.users) == 1


def _distinct(graph: Graph, group: Group) -> bool:
    """No convolution or batch norm stands in the group twice."""
    modules = [graph.leaf(node) for node in group.nodes if graph.kind(node) in ("conv", "bn")]
    return len(set(modules)) == len(modules)


def _with_pools(graph: Graph, groups: list[Group]) -> list[Group]:
    """Adds pooling: to a layer in front of it (the stem), else as an op of its own."""
    by_out = {group.out: group for group in groups}
    for node in graph.nodes:
        leaf = graph.leaf(node)
        if leaf is None or graph.kind(node) != "pool" or not _is_pool(leaf):
            continue
        x = node.args[0]
        assert isinstance(x, fx.Node)
        front = by_out.get(x)
        if front is not None and _is_stem(front, leaf):
            stem = dataclasses.replace(front, op="stem", pool=node)
            if is_safe(graph, stem.nodes, stem.inputs):
                groups[groups.index(front)] = stem
                continue
        op = "max_pool" if isinstance(leaf, nn.MaxPool2d) else "avg_pool"
        groups.append(Group(op, x, (), pool=node))
    return groups


def _with_stages(graph: Graph, groups: list[Group]) -> list[Group]:
    """Residual blocks that hand their output to the next block alone, and a stem in front of them,
    as one group."""
    rows: list[list[Group]] = []
    for group in groups:
        before = rows[-1][-1] if rows else None
        if (
            before is not None
            and (_is_stage_block(before) or starts_stage(before))
            and _is_stage_block(group)
            and group.x is before.out
            and set(before.out.users) <= set(group.nodes)
        ):
            rows[-1].append(group)
        else:
            rows.append([group])
    return [group for row in rows for group in _stage(graph, row)]


def _is_stage_block(group: Group) -> bool:
    return len(group.units) > 1 and group.shortcut is None and group.preact is None


def starts_stage(group: Group) -> bool:
    """Whether the group may stand in front of a stage: a layer with its activation and pooling."""
    return len(group.units) == 1 and group.units[0].is_layer and group.units[0].act is not None


def _stage(graph: Graph, row: list[Group]) -> list[Group]:
    """The row as one group, or as it is if that would reorder what has to keep its order."""
    if len(row) == 1:
        return row
    stem, blocks = (row[0], row[1:]) if starts_stage(row[0]) else (None, row)
    units = tuple(unit for group in row for unit in group.units)
    stage = Group("residual_stage", row[0].x, units, stem=stem, blocks=tuple(blocks))
    return [stage] if is_safe(graph, stage.nodes, stage.inputs) else row


def _is_stem(group: Group, pool: nn.Module) -> bool:
    if len(group.units) != 1 or not isinstance(pool, nn.MaxPool2d) or pool.ceil_mode:
        return False
    (unit,) = group.units
    single = unit.is_layer and unit.act is not None and len(unit.out.users) == 1
    return single and pool.dilation in (1, (1, 1))


def _is_pool(module: nn.Module) -> bool:
    if isinstance(module, nn.MaxPool2d):
        return not module.return_indices
    if isinstance(module, nn.AvgPool2d):
        return module.divisor_override is None
    return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1), [1, 1])


def layer_names(group: Group) -> tuple[str, ...]:
    """Paths of the children in a group, and the names of functions in it."""
    return tuple(
        str(node.target) if node.op == "call_module" else f"{_function_name(node)}()"
        for node in group.nodes
    )


def _function_name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target)).rstrip("_")


def left_layers(graph: Graph, groups: list[Group]) -> tuple[tuple[str, str], ...]:
    """(path, reason) of each convolution, batch norm and activation outside the groups."""
    inside = {node for group in groups for node in group.nodes}
    return tuple(
        (str(node.target), _why_left(graph, node))
        for node in graph.nodes
        if node not in inside and (leaf := graph.leaf(node)) is not None and is_layer(leaf)
    )


def _why_left(graph: Graph, node: fx.Node) -> str:
    leaf = graph.leaf(node)
    assert leaf is not None
    if hooked(leaf):
        return "has hooks"
    kind = graph.kind(node)
    act = graph.act(node)
    if not kind or (kind == "act" and act is None):
        return f"{type(leaf).__name__} has no fused form"
    if act is not None:
        if len(act.operand.users) > 1:
            return "its input is used elsewhere too"
        return "does not follow a convolution or batch norm"
    if len(node.users) > 1:
        return "its output is used more than once"
    return "nothing follows that it fuses with"
