"""SGD with the usual parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .config import TrainConfig
from .finetune import head_of


def param_groups(
    model: nn.Module, weight_decay: float, head_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Two groups: filters and matrices with weight decay; batch norm and biases without.

    With a head_scale other than 1 the head has two more, whose learning rate is so many times the
    others'.
    """
    head: set[nn.Parameter] = set()
    if head_scale != 1:
        head = set(model.get_submodule(head_of(model)).parameters())
    groups: list[dict[str, Any]] = []
    for scale in dict.fromkeys((1.0, head_scale)):
        chosen = [p for p in model.parameters() if p.requires_grad and (p in head) == (scale != 1)]
        for decay, many in ((weight_decay, True), (0.0, False)):
            parameters = [p for p in chosen if (p.ndim > 1) == many]
            groups.append({"params": parameters, "weight_decay": decay, "lr_scale": scale})
    return groups


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; `set_lr` gives it its learning rate at each step.

    For a CUDA graph the learning rate is a tensor on the device, which only the fused step reads
    there: a captured step would otherwise repeat the learning rate of its capture.
    """
    groups = param_groups(model, config.weight_decay, (config.head_lr or config.lr) / config.lr)
    options: dict[str, Any] = {"fused": True} if config.cuda_graph else {}
    optimizer = torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, **options
    )
    if config.cuda_graph:
        lr_on_device(optimizer, torch.device(config.device))
    return optimizer


def lr_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Makes each group's learning rate a tensor there."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(device)


def lr_at(step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """Learning rate of a step: linear from peak/warmup_steps to peak, then a half cosine to 0.

    The cosine reaches 0 one step after the last, so that no step is wasted.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * peak * (1 + math.cos(math.pi * progress))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every parameter group this learning rate times its scale."""
    for group in optimizer.param_groups:
        value = lr * group["lr_scale"]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value
