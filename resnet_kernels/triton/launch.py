"""Launches a kernel where its tensors are: on a GPU, interpreted on numpy, or on the emulator."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .common import INTERPRETED


class Config(NamedTuple):
    """Warps of a block and stages of its software pipeline."""

    warps: int = 4
    stages: int = 1


DEFAULT = Config()


def on_cpu_emulated(device: torch.device) -> bool:
    """Whether tensors on this device go through the emulator."""
    return device.type == "cpu" and not INTERPRETED.value


def launch(
    kernel: Any, programs: int, *args: Any, config: Config = DEFAULT, **constants: Any
) -> None:
    """kernel[programs](*args, **constants); nothing where there is nothing to do.

    args: tensors, None, ints and floats in the kernel's order; one of them is a tensor.
    """
    if programs == 0:
        return
    device = next(arg.device for arg in args if isinstance(arg, Tensor))
    if on_cpu_emulated(device):
        from .emulated import run

        run(kernel, programs, args, constants, config)
        return
    guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with guard:
        kernel[(programs,)](*args, **constants, num_warps=config.warps, num_stages=config.stages)
