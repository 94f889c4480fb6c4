"""Grad-CAM: which part of a picture speaks for a class (Selvaraju et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .plots import save_figure
from .trained import Trained, as_batch, fitted, read_picture


def last_stage(model: nn.Module) -> nn.Module:
    """The last stage of residual blocks, whose output has the deepest features with a place."""
    stages = [module for name, module in model.named_children() if name.startswith("layer")]
    if not stages:
        raise ValueError("model: expected stages named layer1, layer2, ...")
    return stages[-1]


def heat_map(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """What each place of a picture adds to the score of a class.

    Equivalent to: relu(sum_k mean_hw(d score / d A_k) * A_k), A the features of the last stage,
    resized to the picture and divided by its maximum.

    Args:
        model: in eval mode. images: [B, C, H, W], normalised. classes: [B], or the predicted ones.
    Returns: [B, H, W] fp32 in 0..1; all zero where nothing speaks for the class.
    """
    features: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
        features.append(output)

    hook = last_stage(model).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            # Frozen networks too have a gradient with respect to the picture, so to the features.
            logits = model(images.detach().requires_grad_())
            chosen = logits.argmax(1) if classes is None else classes
            score = logits.gather(1, chosen[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, features[0])
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * features[0].detach()).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat.float(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def draw_heat_maps(
    trained: Trained, pictures: Sequence[Path], target: str | None, path: Path
) -> list[str]:
    """Writes one row per picture: as the network sees it, and the heat map over it.

    Returns: a line per picture. Raises: UserError for an unknown class or a broken picture.
    """
    from matplotlib.figure import Figure

    info = trained.info
    if target is not None and target not in info.classes:
        raise UserError(f"--target: expected a class of {info.name}, got {target!r}")
    seen = [fitted(read_picture(picture), info) for picture in pictures]
    images = as_batch(seen, info, trained.config.device)
    with torch.no_grad():
        shares = trained.model(images).float().softmax(1).cpu()
    chosen = shares.argmax(1)
    if target is not None:
        chosen = torch.full_like(chosen, info.classes.index(target))
    heats = heat_map(trained.model, images, chosen.to(images.device)).cpu()

    columns = min(4, len(seen))
    rows = -(-len(seen) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 2 * columns, squeeze=False).reshape(-1, 2)
    for pair in axes:
        for part in pair:
            part.axis("off")
    lines = []
    for pair, file, picture, heat, index, share in zip(
        axes, pictures, seen, heats, chosen.tolist(), shares, strict=False
    ):
        name = f"{info.classes[index]} {share[index]:.1%}"
        grey = {"cmap": "gray"} if info.channels == 1 else {}
        for part in pair:
            part.imshow(picture, **grey)
        pair[1].imshow(heat.numpy(), cmap="jet", alpha=0.45, vmin=0, vmax=1)
        pair[0].set_title("/".join(file.parts[-2:]), fontsize=9)
        pair[1].set_title(name, fontsize=9)
        lines.append(f"{file}: {name}")
    save_figure(figure, path)
    return lines
