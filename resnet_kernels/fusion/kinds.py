"""What a module or a graph node is: convolution, batch norm, activation, addition, pooling."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn


def original_class(cls: type) -> type:
    """The class a fused class stands for, or cls itself."""
    return getattr(cls, "_rnk_original", cls)


def forward_of(module: nn.Module) -> Any:
    """The forward of the module's own class, fused or not; None if it has none."""
    return getattr(original_class(type(module)), "forward", None)


def kind_of_class(cls: type) -> str:
    """ "conv", "bn", "act", "pool", "pad", "identity" or "" for all else, subclasses included."""
    return _CLASSES.get(cls) or _NAMED_CLASSES.get((cls.__module__, cls.__name__), "")


def is_layer(module: nn.Module) -> bool:
    """Whether explain() has a row for the module: any convolution, batch norm or activation."""
    if kind_of_class(type(module)) in ("conv", "bn", "act"):
        return True
    layers = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase)
    in_file = type(module).__module__ == nn.modules.activation.__name__
    return isinstance(module, layers) or (in_file and not isinstance(module, nn.MultiheadAttention))


def is_linear(module: nn.Module | None) -> bool:
    """Whether it is a plain nn.Linear, which inference may run by a packed weight."""
    return type(module) is nn.Linear and not hooked(module)


_CLASSES: dict[type, str] = {
    nn.Conv2d: "conv",
    nn.BatchNorm2d: "bn",
    nn.SyncBatchNorm: "bn",
    nn.ReLU: "act",
    nn.GELU: "act",
    nn.SiLU: "act",
    nn.LeakyReLU: "act",
    nn.Identity: "identity",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "pool",
    nn.AdaptiveAvgPool2d: "pool",
}
# Known by name, so that torchvision is not imported, and because .nn imports this package.
_NAMED_CLASSES = {
    ("torchvision.ops.misc", "FrozenBatchNorm2d"): "bn",
    ("resnet_kernels.nn", "PadShortcut"): "pad",
}
# Modules that neither change their input nor return (a view of) it.
_FRESH_CLASSES = (
    *(cls for cls, kind in _CLASSES.items() if kind in ("conv", "bn", "pool")),
    nn.GELU,
    nn.Linear,
    nn.Sigmoid,
    nn.Tanh,
    nn.AdaptiveMaxPool2d,
    nn.ConvTranspose2d,
)
# Activations and dropout: they return their input, or change it, if so told.
_IN_PLACE_CLASSES = (
    nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.ELU,
    nn.Dropout, nn.Dropout2d,
)  # fmt: skip


def hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than its class's forward."""
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def is_inlined(module: nn.Module) -> bool:
    """Whether a trace looks into this child: a Sequential that is empty or has a layer in it."""
    if forward_of(module) is not nn.Sequential.forward:
        return False
    children = [child for child in module.__dict__["_modules"].values() if child is not None]
    return not children or any(
        kind_of_class(type(child)) or is_inlined(child) for child in children
    )


def is_stateless(module: nn.Module) -> bool:
    """Whether the module is a user's function in module form (LambdaLayer, Swish)."""
    own = module.__dict__
    package = type(module).__module__.partition(".")[0]
    known = package in ("torch", "torchvision", "timm") or kind_of_class(type(module)) != ""
    return not (known or own["_modules"] or own["_parameters"] or own["_buffers"])


# In the meta of a node that stands for a BatchNormAct2d without its activation.
NORM_ONLY = "rnk_norm_only"


def is_norm_act(module: nn.Module) -> bool:
    """Whether the module is timm's batch norm with an activation in it, and nothing else."""
    cls = type(module)
    # Known by name, so that timm is not imported.
    if cls.__name__ != "BatchNormAct2d" or cls.__module__ != "timm.layers.norm_act":
        return False
    drop, act = (module._modules.get(name) for name in ("drop", "act"))
    if drop is None or act is None or kind_of_class(type(drop)) != "identity":
        return False
    is_act = kind_of_class(type(act)) in ("act", "identity")
    return is_act and not (hooked(module) or hooked(drop) or hooked(act))


class Act(NamedTuple):
    """An activation node: its name in the ops, its slope, its operand."""

    name: str
    slope: float
    operand: fx.Node


class Add(NamedTuple):
    operands: tuple[fx.Node, fx.Node]
    in_place: bool


_ACT_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu_: "relu",
    F.gelu: "gelu",
    F.silu: "silu",
    F.leaky_relu: "leaky_relu",
    F.leaky_relu_: "leaky_relu",
}
_ACT_METHODS = {"relu": "relu", "relu_": "relu"}
_ADDS: dict[Any, bool] = {operator.add: False, operator.iadd: True, torch.add: False}
_ADD_METHODS = {"add": False, "add_": True}
_FRESH_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    [
        operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, torch.add,
        torch.sub, torch.mul, torch.div, torch.cat, torch.stack, torch.sigmoid, torch.tanh,
        torch.relu, F.gelu, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.matmul,
        F.linear, F.conv2d, torch.mean, torch.sum,
    ]
)  # fmt: skip
_FRESH_METHODS = frozenset(["relu", "sigmoid", "tanh", "add", "sub", "mul", "mean", "sum", "clone"])
_MAYBE_IN_PLACE_FUNCTIONS = frozenset([F.relu, F.silu, F.leaky_relu, F.relu6, F.hardswish])


class Graph:
    """Questions about the nodes of one trace; `module` is its root."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self.nodes = list(graph.nodes)
        self.position = {node: index for index, node in enumerate(self.nodes)}
        self._roots: dict[fx.Node, frozenset[fx.Node]] = {}

    def leaf(self, node: Any) -> nn.Module | None:
        """The child a node calls."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        return self.module.get_submodule(str(node.target))

    def kind(self, node: Any) -> str:
        """Kind of the child a node calls on one tensor; "" if it has hooks or is none of ours."""
        leaf = self.leaf(node)
        if leaf is None or hooked(leaf) or node.kwargs or len(node.args) != 1:
            return ""
        if NORM_ONLY in node.meta:
            return "bn"
        return kind_of_class(type(leaf)) if isinstance(node.args[0], fx.Node) else ""

    def act(self, node: fx.Node) -> Act | None:
        """The activation a node computes, as module, function or method."""
        if node.op == "call_module":
            leaf = self.leaf(node)
            if leaf is None or self.kind(node) != "act":
                return None
            return _act_of_module(leaf, node.args[0])
        if node.op == "call_function":
            name = _ACT_FUNCTIONS.get(node.target)
        else:
            name = _ACT_METHODS.get(str(node.target)) if node.op == "call_method" else None
        if name is None:
            return None
        names = {"relu": ["inplace"], "silu": ["inplace"], "gelu": ["approximate"]}.get(
            name, ["negative_slope", "inplace"]
        )
        given = dict(zip(["input", *names], node.args, strict=False)) | node.kwargs
        operand, slope = given.get("input"), given.get("negative_slope", 0.01)
        if not isinstance(operand, fx.Node) or not isinstance(slope, (int, float)):
            return None
        if given.get("approximate", "none") != "none":
            return None
        return Act(name, float(slope), operand)

    def add(self, node: fx.Node) -> Add | None:
        """The addition of two values a node computes."""
        if node.op == "call_function":
            in_place = _ADDS.get(node.target)
        else:
            in_place = _ADD_METHODS.get(str(node.target)) if node.op == "call_method" else None
        if in_place is None or node.kwargs or len(node.args) != 2:
            return None
        first, second = node.args
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or first is second:
            return None
        return Add((first, second), in_place)

    def roots(self, node: fx.Node) -> frozenset[fx.Node]:
        """The values whose memory this one may share; inputs of the forward may share theirs."""
        if node not in self._roots:
            if node.op == "placeholder":
                found = frozenset(n for n in self.nodes if n.op == "placeholder")
            elif self._is_fresh(node) or not node.all_input_nodes:
                found = frozenset([node])
            else:
                found = frozenset([node]).union(*(self.roots(n) for n in node.all_input_nodes))
            self._roots[node] = found
        return self._roots[node]

    def changed(self, node: fx.Node) -> frozenset[fx.Node]:
        """Roots of the values that running this node may write to."""
        if node.op in ("placeholder", "get_attr", "output"):
            return frozenset()
        if node.op == "call_module":
            leaf = self.leaf(node)
            known = NORM_ONLY in node.meta or kind_of_class(type(leaf)) != ""
            known = known or type(leaf) in (*_FRESH_CLASSES, *_IN_PLACE_CLASSES)
            writes = not known or hooked(leaf) or getattr(leaf, "inplace", False)  # type: ignore[arg-type]
        elif node.op == "call_method":
            writes = str(node.target).endswith("_")
        else:
            writes = _function_writes(node)
        if not writes:
            return frozenset()
        return frozenset().union(*(self.roots(n) for n in node.all_input_nodes))

    def _is_norm_or_pad(self, node: fx.Node) -> bool:
        leaf = self.leaf(node)
        kind = "" if leaf is None else kind_of_class(type(leaf))
        return NORM_ONLY in node.meta or kind in ("bn", "pad")

    def _is_fresh(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            leaf = self.leaf(node)
            if leaf is None or hooked(leaf):
                return False
            if type(leaf) in _FRESH_CLASSES or self._is_norm_or_pad(node):
                return True
            is_dropout = isinstance(leaf, (nn.Dropout, nn.Dropout2d))
            return type(leaf) in _IN_PLACE_CLASSES and not (is_dropout or leaf.inplace)
        if node.op == "call_method":
            return node.target in _FRESH_METHODS
        if node.op == "call_function":
            if node.target in _MAYBE_IN_PLACE_FUNCTIONS:
                return not _function_writes(node)
            return node.target in _FRESH_FUNCTIONS and "out" not in node.kwargs
        return False


def _act_of_module(module: nn.Module, operand: Any) -> Act | None:
    if isinstance(module, nn.LeakyReLU):
        return Act("leaky_relu", float(module.negative_slope), operand)
    if isinstance(module, nn.GELU):
        return Act("gelu", 0.0, operand) if module.approximate == "none" else None
    return Act("relu" if isinstance(module, nn.ReLU) else "silu", 0.0, operand)


def _function_writes(node: fx.Node) -> bool:
    """Whether a called function may write to its arguments."""
    function: Any = node.target
    if function is OrderedDict:
        return False
    name = getattr(function, "__name__", "")
    home = (getattr(function, "__module__", "") or "").partition(".")[0]
    if home not in ("torch", "_operator", "operator", "math", "builtins", ""):
        return True
    if "out" in node.kwargs or name.endswith("_"):
        return True
    if home in ("_operator", "operator"):
        return name.startswith("i") and name not in ("index", "inv", "invert", "is_", "is_not")
    return bool(node.kwargs.get("inplace")) or True in node.args[1:]


def is_tensor(node: fx.Node, module: nn.Module) -> bool:
    """Whether the value of a node is certainly a tensor."""
    if node.op in ("placeholder", "get_attr"):
        return True
    if node.op == "call_module":
        cls = type(module.get_submodule(str(node.target)))
        return cls in (*_FRESH_CLASSES, *_IN_PLACE_CLASSES) or bool(kind_of_class(cls))
    known = _FRESH_FUNCTIONS | _MAYBE_IN_PLACE_FUNCTIONS
    if node.op == "call_function" and (node.target in known or node.target in _ADDS):
        return any(is_tensor(n, module) for n in node.all_input_nodes)
    return node.op == "call_method" and (
        node.target in _FRESH_METHODS or node.target in _ADD_METHODS
    )
