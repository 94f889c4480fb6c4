"""Writes a plan from a trace: a guard, whether the module still is as it was, and a forward.

Both are small Python functions that fetch children by name when they run, so one plan serves every
module that passes its guard, and torch.compile can look into it. A fused op that cannot take the
tensors it gets returns None, and the original modules run in their order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from . import runtime
from .hazards import is_immutable
from .kinds import NORM_ONLY, Graph, hooked, is_linear, kind_of_class, original_class
from .match import (
    Group,
    children_behind_stems,
    drop_identities,
    find_groups,
    layer_names,
    left_layers,
    split_norm_acts,
)
from .reads import MISSING
from .settings import Settings, snapshot
from .trace import ArgumentKey, Trace
from .units import Unit
from .views import RESHAPES, is_view, views, written_view

# Attributes of leaves that a plan relies on, by module.
_RELIED_ON = {
    "activation": ("inplace", "approximate", "negative_slope"),
    "dropout": ("inplace",),
    "pooling": ("return_indices", "divisor_override", "output_size", "ceil_mode", "dilation"),
}


# What a node of either kind calls.
_FLATTEN = (torch.flatten, "flatten")


@dataclasses.dataclass
class Plan:
    """How a module runs for one argument structure; `run` is None where its own forward does.

    fused: op and layers of each group; left: layer and reason of each layer that runs by itself;
    behind_stems: children that would continue a stage with one of the groups; keeps_views: the
    forward's views, if it has some, run as they are. A plan knows children by path only, so it
    serves other modules and keeps none alive.
    """

    guard: Callable[[nn.Module], bool]
    run: Callable[..., Any] | None
    reason: str
    fused: tuple[tuple[str, tuple[str, ...]], ...]
    left: tuple[tuple[str, str], ...]
    behind_stems: tuple[str, ...]
    keeps_views: bool
    source: str


class _Source:
    """Lines of a function and the objects its text refers to by name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def constant(self, value: Any) -> str:
        """An expression for value."""
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        if type(value) is float and math.isfinite(value):
            return repr(value)
        if id(value) not in self._names:
            name = f"k{len(self._names)}"
            self._names[id(value)] = name
            self.scope[name] = value
        return self._names[id(value)]

    def add(self, indent: int, line: str) -> None:
        self.lines.append("    " * indent + line)

    def function(self, header: str) -> tuple[Callable[..., Any], str]:
        text = "\n".join([header, *self.lines]) + "\n"
        code = compile(text, f"<plan {header}>", "exec")
        exec(code, self.scope)
        return self.scope.pop(header.split("(")[0].removeprefix("def ")), text


def make_plan(
    module: nn.Module,
    forward: Callable[..., Any],
    key: ArgumentKey,
    opened: frozenset[nn.Module] = frozenset(),
) -> Plan:
    """Traces `forward` of the module for arguments of this structure; never fails.

    opened: children to look into whose residual blocks run in a row as one op with rebuilt outputs.
    """
    trace = Trace(module, forward, key, opened)
    if trace.graph is not None:
        trace.touched |= split_norm_acts(module, trace.graph)
    guard = _write_guard(module, trace)
    if trace.graph is None:
        return Plan(guard, None, trace.reason, (), (), (), True, "")
    drop_identities(module, trace.graph)
    graph = Graph(module, trace.graph)
    groups = find_groups(graph, stages=bool(opened))
    if not (any(group.units for group in groups) or views(graph)):
        return Plan(guard, None, "", (), left_layers(graph, []), (), False, "")
    writes = written_view(graph)
    run, text = _Run(graph, groups, reshape=not writes).write()
    fused = tuple((group.op, layer_names(group)) for group in groups)
    behind_stems = children_behind_stems(graph, groups)
    return Plan(guard, run, "", fused, left_layers(graph, groups), behind_stems, writes, text)


def _write_guard(module: nn.Module, trace: Trace) -> Callable[[nn.Module], bool]:
    """guard(module): everything the trace looked at is as it was."""
    source = _Source()
    source.scope.update(MISSING=MISSING, original_class=original_class, hooked=hooked)
    cls, forward = original_class(type(module)), source.constant(trace.forward)
    source.add(1, f"if {source.constant(cls)}.forward is not {forward}: return False")
    paths: dict[str, str] = {"": "self"}
    for path in sorted(_guarded_paths(trace), key=lambda path: path.count(".")):
        _guard_child(source, module, path, paths)
    for path, names in trace.reads.structures.items():
        source.add(1, f"if tuple({paths[path]}._modules) != {source.constant(names)}: return False")
    for (path, name), value in {**trace.reads.values, **_relied_on(module, trace)}.items():
        if not isinstance(value, nn.Module):
            condition = _differs(source, f"getattr({paths[path]}, {name!r}, MISSING)", value)
            source.add(1, f"if {condition}: return False")
    for first, second in trace.aliases:
        source.add(1, f"if {paths[first]} is not {paths[second]}: return False")
    for (_, name), (scope, value) in trace.constants.items():
        condition = _differs(source, f"{source.constant(scope)}.get({name!r}, MISSING)", value)
        source.add(1, f"if {condition}: return False")
    source.add(1, "return True")
    return source.function("def guard(self):")[0]


def _guarded_paths(trace: Trace) -> set[str]:
    """Paths of all modules the trace met, with their parents."""
    met = set(trace.touched) | {path for path, _ in trace.reads.values}
    met |= set(trace.reads.structures) | {path for pair in trace.aliases for path in pair}
    for (path, name), value in trace.reads.values.items():
        if isinstance(value, nn.Module):
            met.add(f"{path}.{name}" if path else name)
    parents = {path.rsplit(".", i)[0] for path in met for i in range(path.count(".") + 1)}
    return (met | parents) - {""}


def _guard_child(source: _Source, module: nn.Module, path: str, paths: dict[str, str]) -> None:
    """The child is there, of the same class (fused or not) and has hooks only if it had some."""
    parent, _, name = path.rpartition(".")
    local = f"m{len(paths)}"
    paths[path] = local
    child = module.get_submodule(path)
    source.add(1, f"{local} = {paths[parent]}._modules.get({name!r})")
    cls = original_class(type(child))
    class_name = source.constant(cls)
    if kind_of_class(cls):
        different = f"type({local}) is not {class_name}"
    else:
        different = f"original_class(type({local})) is not {class_name}"
    source.add(1, f"if {different}: return False")
    source.add(1, f"if {'not ' if hooked(child) else ''}hooked({local}): return False")


def _relied_on(module: nn.Module, trace: Trace) -> dict[tuple[str, str], Any]:
    found = {}
    for path in trace.touched:
        child = module.get_submodule(path)
        package, _, home = type(child).__module__.rpartition(".")
        names = _RELIED_ON.get(home, ()) if package == "torch.nn.modules" else ()
        found.update({(path, name): vars(child)[name] for name in names if name in vars(child)})
    return found


def _differs(source: _Source, expression: str, value: Any) -> str:
    """Condition text: the expression is no longer the recorded value."""
    if isinstance(value, torch.Tensor):
        return f"not isinstance({expression}, {source.constant(torch.Tensor)})"
    if isinstance(value, Settings):
        source.scope["snapshot"] = snapshot
        return f"snapshot({expression}) != {source.constant(snapshot(value))}"
    if value is None or isinstance(value, bool) or not is_immutable(value):
        return f"{expression} is not {source.constant(value)}"
    return f"{expression} != {source.constant(value)}"


def _fetch(start: str, path: str) -> str:
    return start + "".join(f"._modules[{name!r}]" for name in path.split("."))


class _Run:
    """Writes the forward of a plan."""

    def __init__(self, graph: Graph, groups: list[Group], reshape: bool) -> None:
        self.graph, self.reshape = graph, reshape
        self.source = _Source()
        self.names = {node: f"v{index}" for index, node in enumerate(graph.nodes)}
        self.by_out = {group.out: group for group in groups}
        self.inside = {node for group in groups for node in group.nodes}
        self.last_use = self._last_uses()
        self.depth = 0

    def _add(self, indent: int, line: str) -> None:
        self.source.add(self.depth + indent, line)

    def write(self) -> tuple[Callable[..., Any], str]:
        inputs = [self.names[n] for n in self.graph.nodes if n.op == "placeholder"]
        last: fx.Node | None = None  # of what runs where a classifier does not
        for node in self.graph.nodes:
            if node.op == "placeholder":
                continue
            linear = self._classifier(node)
            if linear is not None:
                self._add(1, f"{self.names[linear]} = {self._classifier_call(node, linear)}")
                self._add(1, f"if {self.names[linear]} is None:")
                self.depth, last = 1, linear
            if node.op == "output":
                self._add(1, f"return {self._argument(node.args[0])}")
            elif node in self.by_out:
                self._group(self.by_out[node])
            elif node not in self.inside:
                self._add(1, self._node(node))
            self._release(node)
            if node is last:
                self.depth = 0
        return self.source.function(f"def run({', '.join(['self', *inputs])}):")

    def _last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        """The values that nobody needs after a node has run; a group's nodes run with its last."""
        runs_at = {n: group.out for group in self.by_out.values() for n in group.nodes}
        dead: dict[fx.Node, list[fx.Node]] = {}
        position = self.graph.position
        for node in self.graph.nodes:
            users = [runs_at.get(user, user) for user in node.users]
            hidden = node in self.inside and node not in self.by_out
            if users and not hidden and node.op != "output":
                dead.setdefault(max(users, key=position.__getitem__), []).append(node)
        return dead

    def _release(self, node: fx.Node) -> None:
        names = [self.names[dead] for dead in self.last_use.get(node, ())]
        if names and node.op != "output":
            self._add(1, f"del {', '.join(names)}")

    def _node(self, node: fx.Node) -> str:
        """One original operation."""
        args = [self._argument(arg) for arg in node.args]
        kwargs = [f"{name}={self._argument(arg)}" for name, arg in node.kwargs.items()]
        if node.op == "get_attr":
            value = "self." + str(node.target)
        elif NORM_ONLY in node.meta:
            # What a BatchNormAct2d does in front of its activation.
            norm = self.source.constant(nn.BatchNorm2d.forward)
            value = f"{norm}({_fetch('self', str(node.target))}, {args[0]})"
        elif is_linear(self.graph.leaf(node)) and len(args) == 1 and not kwargs:
            value = f"{self._runtime('linear')}({args[0]}, {self._module(node)})"
        elif node.op == "call_module":
            value = f"{_fetch('self', str(node.target))}({', '.join(args + kwargs)})"
        elif node.op == "call_method":
            method = node.target
            if self.reshape and is_view(node):
                method = RESHAPES[str(method)]
            value = f"{args[0]}.{method}({', '.join(args[1:] + kwargs)})"
        else:
            value = f"{self.source.constant(node.target)}({', '.join(args + kwargs)})"
        return f"{self.names[node]} = {value}"

    def _argument(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self.names[value]
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return "(" + "".join(f"{self._argument(item)}, " for item in value) + ")"
        if isinstance(value, list):
            return "[" + ", ".join(self._argument(item) for item in value) + "]"
        if isinstance(value, dict):
            items = (f"{self._argument(k)}: {self._argument(v)}" for k, v in value.items())
            return "{" + ", ".join(items) + "}"
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return f"slice({', '.join(self._argument(part) for part in parts)})"
        return self.source.constant(value)

    def _group(self, group: Group) -> None:
        out = self.names[group.out]
        self._add(1, f"{out} = {self._call(group)}")
        self._add(1, f"if {out} is None:")
        for node in group.nodes:
            self._add(2, self._node(node))
        hidden = [self.names[node] for node in group.nodes if node is not group.out]
        if hidden:
            self._add(2, f"del {', '.join(hidden)}")

    def _call(self, group: Group) -> str:
        """The call of runtime.py that runs a group."""
        x = self.names[group.x]
        if not group.units:
            assert group.pool is not None
            return f"{self._runtime(group.op)}({x}, {self._module(group.pool)})"
        unit = group.units[-1]
        act = self._act(unit)
        if group.blocks:
            return f"{self._runtime('residual_stage')}({self._stage(group)})"
        if group.preact is not None:
            bns = "".join(f"{self._module(unit.bn)}, " for unit in group.units)
            nodes = [*(unit.conv for unit in group.units[1:]), group.preact.last]
            convs = "".join(f"{self._module(node)}, " for node in nodes)
            skip = group.preact.projection
            projection = "None" if skip is None else self._module(skip)
            return f"{self._runtime('preact_block')}({x}, ({bns}), ({convs}), {projection}, {act})"
        if group.op == "stem":
            return f"{self._runtime('stem')}({x}, {self._stem(group)})"
        if len(group.units) > 1:
            shortcut = self.names[group.shortcut] if group.shortcut is not None else "None"
            return f"{self._runtime('residual_block')}({x}, {shortcut}, {self._block(group)})"
        residual = self.names[unit.residual] if unit.residual is not None else "None"
        parts = [self._module(node) for node in (unit.conv, unit.bn) if node is not None]
        op = "_".join(n for n, p in (("conv", unit.conv), ("bn", unit.bn)) if p is not None)
        return f"{self._runtime(op + '_act')}({x}, {', '.join(parts)}, {residual}, {act})"

    def _stage(self, group: Group) -> str:
        """Input, stem and blocks of a row of residual blocks."""
        blocks = "".join(f"({self._block(block)}), " for block in group.blocks)
        stem = "None" if group.stem is None else f"({self._stem(group.stem)})"
        return f"{self.names[group.x]}, {stem}, ({blocks})"

    def _classifier(self, node: fx.Node) -> fx.Node | None:
        """The nn.Linear of the flattened mean of each channel right behind a row that ends here."""
        if node not in self.by_out or not self.by_out[node].blocks:
            return None
        at = self.graph.position[node]
        pool, flat, linear, *_ = *self.graph.nodes[at + 1 : at + 4], None, None, None
        mean = self.by_out.get(pool)
        if mean is None or mean.x is not node or len(node.users) != 1 or len(pool.users) != 1:
            return None
        if not isinstance(self.graph.leaf(mean.pool), nn.AdaptiveAvgPool2d):
            return None
        if flat is None or flat.target not in _FLATTEN or flat.args != (pool, 1) or flat.kwargs:
            return None
        if not is_linear(self.graph.leaf(linear)) or len(flat.users) != 1:
            return None
        return linear if linear.args == (flat,) and not linear.kwargs else None

    def _classifier_call(self, node: fx.Node, linear: fx.Node) -> str:
        stage = self._stage(self.by_out[node])
        return f"{self._runtime('classifier')}({stage}, {self._module(linear)})"

    def _block(self, group: Group) -> str:
        """Layers, projection and activation of a residual block."""
        layers = "".join(f"{self._layer(unit)}, " for unit in group.units)
        downsample = self._layer(group.downsample) if group.downsample else "None"
        return f"({layers}), {downsample}, {self._act(group.units[-1])}"

    def _stem(self, group: Group) -> str:
        """Convolution, batch norm, pooling or None, and activation of a stem."""
        (unit,) = group.units
        pool = "None" if group.pool is None else self._module(group.pool)
        return f"{self._module(unit.conv)}, {self._module(unit.bn)}, {pool}, {self._act(unit)}"

    def _layer(self, unit: Unit) -> str:
        return f"({self._module(unit.conv)}, {self._module(unit.bn)})"

    def _module(self, node: fx.Node | None) -> str:
        assert node is not None
        return _fetch("self", str(node.target))

    @staticmethod
    def _act(unit: Unit) -> str:
        return f"{unit.act.name!r}, {unit.act.slope!r}" if unit.act else "None, 0.0"

    def _runtime(self, name: str) -> str:
        self.source.scope[name] = getattr(runtime, name)
        return name
