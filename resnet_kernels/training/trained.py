"""A trained network from its run directory, and pictures as it wants them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_checkpoint
from .config import TrainConfig
from .dataset import DataInfo
from .errors import UserError
from .network import create_network

CHECKPOINT, RUNS = "last.pt", Path("runs")
CROP_RATIO = 256 / 224  # of the evaluation resize to the crop


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network in eval mode, the averaged weights where the run has them; its settings, data."""

    path: Path
    config: TrainConfig
    info: DataInfo
    model: nn.Module


def checkpoint_of(run: Path | None) -> Path:
    """The checkpoint of a run directory, a checkpoint itself, or that of the newest run in runs/.

    Raises: UserError if there is none.
    """
    if run is None:
        found = list(RUNS.glob(f"*/{CHECKPOINT}"))
        if not found:
            raise UserError(f"--run: no run in {RUNS}/; train one, or name a run or checkpoint")
        return max(found, key=lambda path: path.stat().st_mtime)
    return run / CHECKPOINT if run.is_dir() else run


def load_trained(run: Path | None, device: str) -> Trained:
    """The network of a run.

    Raises: UserError if there is no checkpoint, or its weights are not those of its network.
    """
    path = checkpoint_of(run)
    saved = load_checkpoint(path)
    try:
        config, info = _config(saved, device), DataInfo(**saved.data)
        model = create_network(config.model, len(info.classes), info.channels, not config.stock)
        model.load_state_dict(saved.ema or saved.model)
    except (RuntimeError, TypeError) as error:
        model_name = saved.config.get("model")
        raise UserError(f"the weights in {path} do not fit the model {model_name}") from error
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(path, config, info, model.eval())


def _config(saved: Checkpoint, device: str) -> TrainConfig:
    return TrainConfig(**{**saved.config, "device": device, "cuda_graph": False})


def read_picture(path: Path) -> Any:
    """A picture as PIL.Image, decoded. Raises UserError if it is not there or broken."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except FileNotFoundError as error:
        raise UserError(f"no picture {path}") from error
    except (OSError, ValueError, SyntaxError) as error:  # what PIL raises for damaged files
        raise UserError(f"cannot read the picture {path}") from error


def fitted(picture: Any, info: DataInfo) -> Any:
    """The part of a PIL.Image that the network sees, at its size and with its channels."""
    from torchvision.transforms import functional as F

    height, width = info.size
    picture = picture.convert("L" if info.channels == 1 else "RGB")
    if info.fit == "crop":
        picture = F.resize(picture, round(height * CROP_RATIO))
        return F.center_crop(picture, [height, width])
    if (picture.height, picture.width) != (height, width):
        picture = F.resize(picture, [height, width])
    return picture


def as_batch(pictures: Sequence[Any], info: DataInfo, device: str) -> Tensor:
    """Fitted pictures, normalised as in training: [B, C, H, W] fp32 in channels_last memory."""
    from torchvision.transforms import functional as F

    batch = torch.stack([F.normalize(F.to_tensor(p), info.mean, info.std) for p in pictures])
    return batch.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def probabilities(trained: Trained, pictures: Sequence[Path]) -> Tensor:
    """[pictures, classes] fp32 on the CPU."""
    rows = []
    for path in pictures:  # one by one: any number of pictures fits
        picture = fitted(read_picture(path), trained.info)
        logits = trained.model(as_batch([picture], trained.info, trained.config.device))
        rows.append(logits.float().softmax(1).cpu())
    return torch.cat(rows)
