"""Sizes of the inputs of a model's convolutions, found without computing anything."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .api import unfuse


def conv_input_sizes(model: nn.Module, size: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """[N, C, H, W] of each nn.Conv2d's input, by the module's name, for a model input of `size`.

    The last call counts where a convolution is used several times. Raises: whatever the model's own
    forward raises on tensors without data.
    """
    plain = unfuse(copy.deepcopy(model)).eval().to("meta")
    sizes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            sizes[name] = tuple(args[0].shape)

        plain.get_submodule(name).register_forward_pre_hook(hook)

    for name, module in plain.named_modules():
        if isinstance(module, nn.Conv2d):
            note(name)
    dtype = next((p.dtype for p in plain.parameters()), torch.float32)
    with torch.no_grad():
        plain(torch.empty(*size, dtype=dtype, device="meta"))
    return sizes
