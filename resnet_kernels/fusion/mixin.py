"""The class a fused module gets: its own class with another forward.

Children, parameters, names, hooks and state_dict stay. The plans live in the instance under
`_rnk_plans`, by argument structure; copies and pickles leave them out and find or make them again.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import warnings
from typing import Any

import torch
from torch import nn

from . import inference
from .kinds import forward_of, original_class
from .plan import Plan, make_plan
from .trace import ONE_TENSOR, ArgumentKey, argument_key, flat_tensors

# A module that changes its ways more often than this runs as it is where no plan fits.
_MAX_PLANS = 64
# Plans kept per class for other instances to use.
_MAX_POOL = 128
_PLANS = "_rnk_plans"
# In the instance of a module whose residual blocks in a row rebuild their outputs in backward.
STAGE = "_rnk_stage"
# In the instance of a module whose residual blocks in a row are one call where inference.serves().
ROW = "_rnk_row"
# Without strict=True modules run on tensors of a class of torch's own, for which there is no plan.
_EXPORTED = (
    "torch.export of a fused model without strict=True: the program holds torch's own ops, and "
    "needs torch alone; strict=True keeps the fused ones"
)
_BLOCKS = ("basic_block", "bottleneck", "residual_block")

_lock = threading.RLock()
_pool: dict[tuple[type, ArgumentKey, bool, bool], list[Plan]] = {}


class FusedMixin(nn.Module):
    """forward by plan where there is one that fits, else the original forward."""

    _rnk_original: type

    def __reduce_ex__(self, protocol: Any) -> Any:
        function, args, state, *rest = _padded(super().__reduce_ex__(protocol))  # type: ignore[arg-type]
        args = tuple(original_class(arg) if isinstance(arg, type) else arg for arg in args)
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name != _PLANS}
        return (_rebuild, (function, args), state, *rest)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.__dict__.pop(_PLANS, None)
        # torch.compile cannot make a plan while it compiles, so there is one before.
        find_plan(self, ONE_TENSOR)

    def __prepare_scriptable__(self) -> nn.Module:
        """Called by torch.jit.script, which would put what it gets here into the live model."""
        raise TypeError("torch.jit.script: expected an unfused model: call unfuse(model) first")


def _padded(reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*reduced, None) if len(reduced) == 2 else reduced


def _rebuild(function: Any, args: tuple[Any, ...]) -> Any:
    module = function(*args)
    module.__class__ = fused_class(type(module))
    return module


_classes: dict[type, type] = {}


def _forward_of(cls: Any) -> Any:
    """The fused class's forward; it keeps the signature of the original, which torch.fx reads."""

    @functools.wraps(cls.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        key = argument_key(args, kwargs)
        plan = None
        if key is not None and _may_fuse():
            row = ROW in self.__dict__ and key == ONE_TENSOR and inference.serves(args[0])
            plan = find_plan(self, key, row)
        if plan is None or plan.run is None:
            if key is None and torch.compiler.is_exporting():
                warnings.warn(_EXPORTED, stacklevel=2)
            return cls.forward(self, *args, **kwargs)
        return plan.run(self, *flat_tensors(args, kwargs))

    return forward


def fused_class(cls: type) -> type:
    """The subclass of cls that runs by plan. Raises TypeError if cls cannot be subclassed."""
    if cls not in _classes:
        names = {
            "__module__": cls.__module__,
            "__qualname__": f"Fused{cls.__qualname__}",
            "__doc__": cls.__doc__,
            "_rnk_original": cls,
            "forward": _forward_of(cls),
        }
        _classes[cls] = type(cls)(f"Fused{cls.__name__}", (FusedMixin, cls), names)
    return _classes[cls]


def _may_fuse() -> bool:
    """Whether nothing watches single modules: hooks on all modules, torch.jit.trace."""
    return not (torch._C._get_tracing_state() or nn.modules.module._has_any_global_hook())


@dataclasses.dataclass
class _Plans:
    """The plans of one module, and how many were made or found for it."""

    by_key: dict[tuple[ArgumentKey, bool], tuple[Plan, ...]] = dataclasses.field(
        default_factory=dict
    )
    made: int = 0


def find_plan(module: nn.Module, key: ArgumentKey, row: bool = False) -> Plan | None:
    """The plan of a module for these arguments; made now if none fits, but not in torch.compile.

    row: the plan that looks into row_children(module).
    """
    plans = module.__dict__.get(_PLANS)
    if plans is not None:
        for plan in plans.by_key.get((key, row), ()):
            if plan.guard(module):
                return plan
        if plans.made >= _MAX_PLANS:
            return None
    return None if torch.compiler.is_compiling() else _new_plan(module, key, row)


def _new_plan(module: nn.Module, key: ArgumentKey, row: bool) -> Plan:
    """A plan of another instance of the class whose guard fits, or a new one."""
    cls = original_class(type(module))
    with _lock:
        opened: frozenset[nn.Module] = frozenset()
        if row:
            opened = row_children(module)
        elif STAGE in module.__dict__:
            opened = stage_children(module, key)
        shared = _pool.setdefault((cls, key, row, bool(opened)), [])
        plan = next((plan for plan in shared if plan.guard(module)), None)
        if plan is None:
            plan = make_plan(module, forward_of(module), key, opened)
            shared.append(plan)
            del shared[:-_MAX_POOL]
        plans = module.__dict__.setdefault(_PLANS, _Plans())
        plans.by_key[key, row] = (*plans.by_key.get((key, row), ()), plan)
        plans.made += 1
    return plan


def stage_children(module: nn.Module, key: ArgumentKey = ONE_TENSOR) -> frozenset[nn.Module]:
    """What to look into for a stage: the residual blocks that follow each other or a stem."""
    blocks = _blocks_of(module)
    found = set(blocks) if len(blocks) > 1 else set()
    for path in make_plan(module, forward_of(module), key).behind_stems:
        child = module.get_submodule(path)
        if _is_block(child):
            found.add(child)
        elif inner := _blocks_of(child):
            found |= {child, *inner}
    return frozenset(found)


def row_children(module: nn.Module) -> frozenset[nn.Module]:
    """The residual blocks below a module, and the plain Sequentials that they are in."""
    found: set[nn.Module] = set()
    for child in module.children():
        if _is_block(child):
            found.add(child)
        elif forward_of(child) is nn.Sequential.forward and (inner := row_children(child)):
            found |= {child, *inner}
    return frozenset(found)


def _blocks_of(module: nn.Module) -> frozenset[nn.Module]:
    """The children of a Sequential that run as one residual block each."""
    if forward_of(module) is not nn.Sequential.forward:
        return frozenset()
    return frozenset(child for child in module.children() if _is_block(child))


def _is_block(module: nn.Module) -> bool:
    if not isinstance(module, FusedMixin):
        return False
    plan = find_plan(module, ONE_TENSOR)
    return plan is not None and len(plan.fused) == 1 and plan.fused[0][0] in _BLOCKS
