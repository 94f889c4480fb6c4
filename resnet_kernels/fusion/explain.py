"""explain(model): which path each layer takes, and why."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import torch
from torch import fx, nn

from ..ops import library
from ..ops.conv_kernel import TORCH, cpu_conv_kernel, cuda_conv_kernel
from .api import candidates, default_plans, why_untouched
from .conv_sizes import conv_input_sizes
from .kinds import is_layer, kind_of_class
from .mixin import _PLANS, FusedMixin
from .plan import Plan

_UNFUSED = "torch (unfused)"
# The primitive that decides whether an op runs on our convolution or on torch's.
_CONV = "conv_fwd"
# Of convolutions' inputs, by the module's name.
Sizes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Row:
    """Layers that run together, the op they run as, and what there is to say about it."""

    layers: tuple[str, ...]
    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """`rows` cover every convolution, batch norm and activation of the model; str() is a table."""

    rows: list[Row]

    @property
    def fused(self) -> list[Row]:
        return [row for row in self.rows if row.path != _UNFUSED]

    @property
    def unfused(self) -> list[Row]:
        return [row for row in self.rows if row.path == _UNFUSED]

    def __str__(self) -> str:
        lines = [("layers", "path", "why")]
        lines += [(_joined(row.layers), row.path, row.reason) for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(2)]
        text = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in lines]
        return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def _joined(layers: tuple[str, ...]) -> str:
    """Names with what they share written once: layer1.0.{conv1, bn1, relu}."""
    names = list(dict.fromkeys(name for name in layers if not name.endswith("()")))
    if len(names) < 2:
        return ", ".join(names)
    parts = [name.split(".") for name in names]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    inner = ", ".join(".".join(p[shared:]) for p in parts)
    return f"{'.'.join(parts[0][:shared])}.{{{inner}}}" if shared else inner


def explain(model: nn.Module, input_size: Sequence[int] | None = None) -> Explanation:
    """Tells for each layer of a model which path it takes in its present mode, and why.

    Args:
        model: any nn.Module, fused or not, before or after its first forward.
        input_size: [N, C, H, W] of the model's input. CUDA kernels are chosen by size: with it the
            table tells each forward convolution's kernel and tile.
    Returns: an Explanation; print it, or read its `rows`.
    Raises: TypeError for what is not an nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    rows: dict[str, Row] = {}
    reasons: dict[str, str] = {}
    sizes = conv_input_sizes(model, input_size) if input_size is not None else {}
    fusable = set(candidates(model))
    # Outer modules first: what they run inside one op does not run by itself.
    for path, module in model.named_modules():
        if module in fusable:
            _explain_module(path, module, rows, reasons, sizes)
        elif isinstance(module, (fx.GraphModule, torch.jit.ScriptModule)):
            reasons[path] = why_untouched(module) or ""
    ordered: dict[Row, None] = {}
    for path, module in model.named_modules():
        if not is_layer(module):
            continue
        reason = reasons.get(path) or _inherited(path, reasons)
        ordered[rows.get(path) or Row((path,), _UNFUSED, reason)] = None
    return Explanation(list(ordered))


def _explain_module(
    path: str,
    module: nn.Module,
    rows: dict[str, Row],
    reasons: dict[str, str],
    sizes: Sizes,
) -> None:
    plan = _present_plan(module)
    if not isinstance(module, FusedMixin):
        fusable = plan is not None and plan.run is not None
        own = "fuse() was not called" if fusable else (plan.reason if plan else "")
        # Without a reason of its own it keeps what its parent's plan says of it.
        reasons[path] = own or reasons.get(path, "")
    elif "forward" in module.__dict__:
        reasons[path] = "its forward was replaced on the instance"
        return
    if plan is None:
        return
    if plan.reason:
        reasons[path] = plan.reason
    for name, reason in plan.left:
        reasons.setdefault(_join(path, name), reason)
    if isinstance(module, FusedMixin) and plan.run is not None:
        device = _device(module)
        for op, names in plan.fused:
            layers = tuple(_join(path, name) for name in names)
            row = Row(layers, f"{op} ({device})", _remark(path, module, names, sizes))
            for name in layers:
                rows.setdefault(name, row)


def _present_plan(module: nn.Module) -> Plan | None:
    had_plans = _PLANS in module.__dict__
    plans = default_plans(module)
    if not had_plans:
        module.__dict__.pop(_PLANS, None)
    return plans[0] if plans else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _inherited(path: str, reasons: dict[str, str]) -> str:
    """The reason of the nearest parent that has one."""
    while path:
        path = path.rpartition(".")[0]
        if reasons.get(path):
            return reasons[path]
    return "no chain of layers"


def _device(module: nn.Module) -> str:
    return next((tensor.device.type for tensor in module.parameters()), "cpu")


def _remark(path: str, module: nn.Module, names: tuple[str, ...], sizes: Sizes) -> str:
    """What is special about a group: how it convolves, or that it runs unfused after all."""
    convs = {}
    for name in names:
        child = module.get_submodule(name) if not name.endswith("()") else None
        if isinstance(child, nn.Conv2d):
            convs[_join(path, name)] = child
    for conv in convs.values():
        if conv.padding_mode != "zeros":
            return f"runs unfused: padding_mode {conv.padding_mode!r}"
    device = _device(module)
    norms = (module.get_submodule(name) for name in names if not name.endswith("()"))
    for conv, norm in itertools.product(convs.values(), norms):
        if why := _why_frozen_unfused(conv, norm, device):
            return f"runs unfused: {why}"
    kernels = (_conv_kernel(conv, device, sizes.get(name)) for name, conv in convs.items())
    return ", ".join(dict.fromkeys(filter(None, kernels)))


def _why_frozen_unfused(conv: nn.Conv2d, norm: nn.Module, device: str) -> str:
    """Why a FrozenBatchNorm2d runs as it is: arithmetic with vectors of another dtype promotes."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) or kind_of_class(type(norm)) != "bn":
        return ""
    dtype = conv.weight.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    other = {value.dtype for value in norm.buffers()} - {dtype}
    if not other:
        return ""
    promoted = functools.reduce(torch.promote_types, other, dtype)
    return f"{type(norm).__name__} makes {_short(promoted)} of the convolution's {_short(dtype)}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _conv_kernel(conv: nn.Conv2d, device: str, x_size: tuple[int, ...] | None) -> str:
    if library.triton_serves(_CONV, device):
        return "Triton"
    if not library.has_native_kernel(_CONV, device):
        return TORCH
    padding = conv.padding if isinstance(conv.padding, tuple) else (1, 1)
    size, dtype = conv.weight.shape, conv.weight.dtype
    geometry = (conv.stride, padding, conv.dilation, conv.groups)
    if device == "cpu" and library.default_backend() != "emulated":
        return cpu_conv_kernel(size, dtype, *geometry)
    if x_size is None:
        return ""
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    precision = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    tf32 = dtype == torch.float32 and precision == "tf32"
    return cuda_conv_kernel(x_size, size, dtype, *geometry, tf32=tf32)
