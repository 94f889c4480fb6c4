"""Fine-tuning: weights of another run, a new head, frozen layers, averaged weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..models.weights import load_weights, read_file, state_of
from .checkpoint import NOT_DATA, UNREADABLE
from .errors import UserError, first_line


def load_init(model: nn.Module, path: Path, classes: list[str]) -> bool:
    """Loads the weights of a file into a model; the head keeps its own if it is for other classes.

    Args:
        path: a checkpoint of this program, a .pt or .pth state_dict, or .safetensors.
        classes: of the data to be trained on; compared with the file's if it names any.
    Returns: whether the head was loaded too.
    Raises: UserError if the file is missing, damaged, no state_dict or of another model.
    """
    if not path.is_file():
        raise UserError(f"--init: no file {path}")
    try:
        content = read_file(path)
        state = dict(state_of(content, str(path)))
    except pickle.UnpicklingError as error:
        raise UserError(f"--init: cannot read {path}: {NOT_DATA}") from error
    except ImportError as error:
        raise UserError(f"--init: {path} needs {error.name}: pip install {error.name}") from error
    except Exception as error:
        if not isinstance(error, UNREADABLE) and type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"--init: cannot read {path}: {first_line(error)}") from error
    head, own = head_of(model), model.state_dict()
    names = [f"{head}.{name}" for name in model.get_submodule(head).state_dict()]
    kept = all(name in state and state[name].shape == own[name].shape for name in names)
    if kept and _classes_in(content) in (None, classes):
        names = []
    try:
        load_weights(model, {**state, **{name: own[name] for name in names}}, str(path))
    except ValueError as error:
        raise UserError(f"--init: {first_line(error).removeprefix('weights: ')}") from error
    return not names


def _classes_in(content: Mapping[str, object]) -> object:
    data = content.get("data")
    return data.get("classes") if isinstance(data, dict) else None


def head_of(model: nn.Module) -> str:
    """The name of the classifier: the model's last linear layer."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def freeze(model: nn.Module, what: str) -> list[nn.Module]:
    """Stops layers from learning; returns the modules to be kept in eval mode while training.

    Args:
        what: "none"; "bn", batch norm with its running statistics; "backbone", all but the head.
    """
    if what == "none":
        return []
    head = model.get_submodule(head_of(model))
    kept: list[nn.Module]
    if what == "bn":
        kept = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    else:
        kept = [module for module in model.children() if module is not head]
    for module in kept:
        module.requires_grad_(False)
    return kept


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy of the model that follows it as an exponential moving average; None if decay is 0."""
    if not decay:
        return None
    copy = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    return copy


@torch.no_grad()
def restore_averaged(copy: AveragedModel, state: Mapping[str, Tensor]) -> None:
    """Continues an average; without one in the checkpoint it begins with the next step."""
    if state:
        copy.module.load_state_dict(state)
        copy.n_averaged.fill_(1)
