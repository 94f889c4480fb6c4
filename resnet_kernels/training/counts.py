"""Which ops of the library a training step runs, and whether any fell back to plain torch."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..ops import library
from .checkpoint import atomic_file

PREFIX = "resnet_kernels"


@dataclasses.dataclass(frozen=True)
class OpCounts:
    """Calls by op: ours in one training step, and the fallbacks to plain torch among them.

    `declared` are those that belong to the design (torch's convolution), `undeclared` the others.
    """

    per_step: dict[str, int]
    declared: dict[str, int]
    undeclared: dict[str, int]

    def write(self, path: Path) -> None:
        with atomic_file(path) as file:
            file.write((json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode())


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace.startswith(PREFIX):
            self.calls[func._schema.name.partition("::")[2]] += 1
        return func(*args, **(kwargs or {}))


def count_step(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> OpCounts:
    """Runs forward and backward once on a copy of the model and counts the calls."""
    replica = copy.deepcopy(model).train()
    before = Counter(library.fallback_counts())
    with _Counting() as counting, torch.enable_grad():
        loss_of(replica).backward()
    fallbacks = dict(Counter(library.fallback_counts()) - before)
    declared = {name: n for name, n in sorted(fallbacks.items()) if name in library.DECLARED}
    calls = dict(sorted(counting.calls.items()))
    return OpCounts(calls, declared, library.undeclared_fallbacks(fallbacks))
