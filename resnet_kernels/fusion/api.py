"""fuse and unfuse."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import fx, nn

from .kinds import forward_of, kind_of_class, original_class
from .mixin import (
    _PLANS,
    ROW,
    STAGE,
    FusedMixin,
    find_plan,
    fused_class,
    row_children,
    stage_children,
)
from .plan import Plan
from .trace import ONE_TENSOR, ArgumentKey
from .views import uses_view

# In the instance of a convolution whose weight fuse() moved to channels_last memory.
_MOVED = "_rnk_moved"
_WRAPPERS = {
    "DistributedDataParallel": "fuse the model first, then wrap it",
    "DataParallel": "fuse the model first, then wrap it",
    "FullyShardedDataParallel": "fuse the model first, then shard it",
    "FSDPModule": "fuse the model first, then shard it",
    "OptimizedModule": "fuse the model first, then compile it",
}


def fuse(model: nn.Module, *, recompute: str | None = None) -> nn.Module:
    """Makes a model run its convolution, batch norm, activation and residual chains as fused ops.

    Equivalent to: the model itself; outputs, gradients and running statistics stay the same

    Changes the model in place. Modules, parameters, names, shapes and hooks stay; only the class of
    a module that holds a chain becomes a subclass of itself, and convolution weights move to
    channels_last memory, in which results of four dimensions then lie. What is not understood stays
    as it is; `explain(model)` tells. Fusing again is harmless and finds modules added since.
    torch.export keeps the fused ops with strict=True; without it the program holds torch's own.

    Args:
        model: any nn.Module. Wrap in DDP or FSDP, compile or script it afterwards.
        recompute: None, or "stage" to keep no block outputs inside a stage (a Sequential of
            residual blocks, with the network's stem if it comes first) and rebuild them in
            backward, which costs one pass a block.
    Returns: model.
    Raises: TypeError for what is not a plain module (a wrapper, a ScriptModule); ValueError for
        another `recompute`.
    """
    _check(model, "fuse")
    if recompute not in (None, "stage"):
        raise ValueError(f"recompute: expected None or 'stage', got {recompute!r}")
    for module in model.modules():
        if STAGE in module.__dict__ or ROW in module.__dict__:
            _restore(module)
    for module in candidates(model):
        if any(plan.run is not None for plan in default_plans(module)):
            _swap(module)
        else:
            module.__dict__.pop(_PLANS, None)
    if recompute == "stage":
        _mark_stages(model)
    else:
        _mark_rows(model)
    if not any(_needs_contiguous(module) for module in model.modules()):
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                _to_channels_last(module)
    return model


def _needs_contiguous(module: nn.Module) -> bool:
    """Whether a view in the module's forward is not in the hands of a plan."""
    if not uses_view(module):
        return False
    return not isinstance(module, FusedMixin) or any(p.keeps_views for p in default_plans(module))


def unfuse(model: nn.Module) -> nn.Module:
    """Gives every module its own class, and every weight its memory format back, in place.

    Args:
        model: a model after fuse(), or any other.
    Returns: model.
    Raises: TypeError for what is not an nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, FusedMixin):
            _restore(module)
        if module.__dict__.pop(_MOVED, False):
            _move(module, torch.contiguous_format)
    return model


def candidates(model: nn.Module) -> list[nn.Module]:
    """Modules whose forward may hold a chain, inner ones first."""
    found = [
        module
        for module in model.modules()
        if not kind_of_class(type(module))
        and why_untouched(module) is None
        and (
            STAGE in module.__dict__
            or any(kind_of_class(type(child)) for child in _reached(module))
            or uses_view(module)
        )
    ]
    return found[::-1]


def _reached(module: nn.Module) -> list[nn.Module]:
    """Children, through containers that have no forward of their own or are plain sequences."""
    found = []
    for child in module.children():
        found.append(child)
        if isinstance(child, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            found += _reached(child)
    return found


def why_untouched(module: nn.Module) -> str | None:
    """Why a module keeps its class whatever it holds; None if fuse() may change it."""
    if isinstance(module, fx.GraphModule):
        return "a GraphModule: fuse the model before tracing it"
    if isinstance(module, torch.jit.ScriptModule):
        return "a ScriptModule: fuse the model before scripting it"
    forward = forward_of(module)
    if not inspect.isfunction(forward) or forward is nn.Module.forward:
        return "has no forward"
    try:
        fused_class(original_class(type(module)))
    except TypeError as error:
        return f"its class cannot be subclassed: {error}"
    return None


def default_plans(module: nn.Module) -> list[Plan]:
    """The module's plans for its usual arguments in both modes, the present mode's first."""
    key = usual_key(module)
    mode = module.training
    plans = []
    for training in (mode, not mode):
        module.training = training
        try:
            plan = find_plan(module, key)
        finally:
            module.training = mode
        if plan is not None and plan not in plans:
            plans.append(plan)
    return plans


def usual_key(module: nn.Module) -> ArgumentKey:
    """One tensor, or one for each required argument of forward."""
    parameters = list(inspect.signature(forward_of(module)).parameters.values())[1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind in positional]
    return (("tensor",) * len(required), ()) if len(required) > 1 else ONE_TENSOR


def _swap(module: nn.Module) -> None:
    if not isinstance(module, FusedMixin):
        object.__setattr__(module, "__class__", fused_class(type(module)))


def _restore(module: nn.Module) -> None:
    object.__setattr__(module, "__class__", original_class(type(module)))
    for name in (_PLANS, STAGE, ROW):
        module.__dict__.pop(name, None)


def _may_hold_blocks(module: nn.Module) -> bool:
    return isinstance(module, (FusedMixin, nn.Sequential)) and why_untouched(module) is None


def _mark_rows(model: nn.Module) -> None:
    """Lets the outermost modules that can run residual blocks in a row as one call do so."""
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module in inside or not _may_hold_blocks(module) or usual_key(module) != ONE_TENSOR:
            continue
        children = row_children(module)
        plan = find_plan(module, ONE_TENSOR, row=True) if len(children) > 1 else None
        if plan is not None and any(op == "residual_stage" for op, _ in plan.fused):
            module.__dict__[ROW] = True
            _swap(module)
            inside |= children
        elif not isinstance(module, FusedMixin):
            module.__dict__.pop(_PLANS, None)


def _mark_stages(model: nn.Module) -> None:
    """Lets each module with residual blocks in a row, or behind a stem, run them as one op."""
    for module in model.modules():
        if _may_hold_blocks(module) and stage_children(module, usual_key(module)):
            module.__dict__.pop(_PLANS, None)
            module.__dict__[STAGE] = True
            _swap(module)
            default_plans(module)


def _to_channels_last(conv: nn.Conv2d) -> None:
    weight = conv._parameters.get("weight")
    if type(weight) is not nn.Parameter or weight.dim() != 4:
        return
    if not weight.is_contiguous(memory_format=torch.channels_last):
        _move(conv, torch.channels_last)
        conv.__dict__[_MOVED] = True


def _move(conv: nn.Module, memory_format: torch.memory_format) -> None:
    weight = conv._parameters.get("weight")
    if type(weight) is nn.Parameter and weight.dim() == 4:
        weight.data = weight.data.contiguous(memory_format=memory_format)


def _check(model: Any, what: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: expected a plain nn.Module, got a ScriptModule: fuse it first")
    for module in model.modules():
        for base in type(module).__mro__:
            if base.__name__ in _WRAPPERS and base.__module__.startswith("torch"):
                advice = _WRAPPERS[base.__name__]
                raise TypeError(f"model: expected a plain nn.Module, got {base.__name__}: {advice}")
