"""Reads weights from a file or from torchvision's weight enums, and puts them into a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion import fuse
from ..fusion.kinds import original_class

# Where checkpoints keep the state_dict; ours have averaged weights beside the last ones.
_NESTED = ("ema", "state_dict", "model", "model_state_dict")
_SHOWN = 3


def build(
    make: Callable[[int], nn.Module],
    weights: Any,
    num_classes: int | None,
    default_classes: int,
    fused: bool,
    classifier: str = "fc.weight",
) -> nn.Module:
    """make(number of classes) with weights loaded and, if wanted, fused.

    num_classes None is that of the weights, else default_classes. Raises as load_weights.
    """
    state = None if weights is None else read_weights(weights)
    if num_classes is None:
        head = (state or {}).get(classifier)
        num_classes = default_classes if head is None else head.shape[0]
    model = make(num_classes)
    if state is not None:
        load_weights(model, state, str(weights))
    return fuse(model) if fused else model


def read_weights(weights: Any) -> Mapping[str, Tensor]:
    """The state_dict of a .pt, .pth or .safetensors file, or of a torchvision weight enum.

    Raises: FileNotFoundError; TypeError or ValueError for what is none of these.
    """
    if hasattr(weights, "get_state_dict"):
        return weights.get_state_dict(progress=False, check_hash=True)
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f"weights: expected a path or a torchvision weight enum, got {type(weights).__name__}"
        )
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}")
    return state_of(read_file(path), str(path))


def read_file(path: Path) -> Any:
    """The content of a .pt, .pth or .safetensors file on the CPU; no code in it is run."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def state_of(content: Any, source: str) -> Mapping[str, Tensor]:
    """The state_dict in what a file holds. Raises ValueError if there is none."""
    state = content
    for name in _NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict) and state[name]:
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        found = type(content).__name__
        raise ValueError(f"weights: expected a state_dict in {source}, got {found}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """model.load_state_dict, with one short error. Raises ValueError if keys or shapes differ."""
    own = model.state_dict()
    wrong = [
        f"{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    parts = [
        _shortened("missing", [name for name in own if name not in state]),
        _shortened("unexpected", [name for name in state if name not in own]),
        _shortened("of another shape", wrong),
    ]
    if any(parts):
        kind = original_class(type(model)).__name__
        problems = "; ".join(part for part in parts if part)
        raise ValueError(f"weights: {source} does not fit {kind} as built here: {problems}")
    model.load_state_dict(state)


def _shortened(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(names[:_SHOWN])}{more}"
