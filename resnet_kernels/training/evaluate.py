"""What a trained network does on a test set: loss, top-k accuracy, classes, confusion matrix."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .data import open_data
from .errors import UserError
from .plots import save_figure
from .trained import Trained

BATCH = 256
_LABELLED = 20  # classes whose names and counts fit into the picture


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`confusion` [classes, classes] int64 counts pictures of class i taken for class j."""

    loss: float
    top5: float
    classes: list[str]
    confusion: Tensor

    @property
    def seen(self) -> int:
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        return int(self.confusion.trace())

    def as_dict(self) -> dict[str, Any]:
        totals = self.confusion.sum(1).clamp_min(1)
        recall = (self.confusion.diag() / totals).tolist()
        return {
            "loss": self.loss,
            "accuracy": self.correct / max(1, self.seen),
            "top5": self.top5,
            "correct": self.correct,
            "seen": self.seen,
            "classes": dict(zip(self.classes, recall, strict=True)),
            "confusion": self.confusion.tolist(),
        }


@torch.no_grad()
def evaluate(trained: Trained, data: str | None, data_dir: str | None) -> Evaluation:
    """Runs the test split of the run's data, or of other data with the same classes.

    Raises: UserError if the data is not usable or has other classes or channels.
    """
    given: dict[str, Any] = {"data": data, "data_dir": data_dir}
    config = dataclasses.replace(trained.config, **{k: v for k, v in given.items() if v})
    if trained.info.fit == "crop":
        config = dataclasses.replace(config, size=trained.info.size[0])
    found = open_data(config)
    for name in ("classes", "channels", "size"):
        have, expected = getattr(found.info, name), getattr(trained.info, name)
        if have != expected:
            raise UserError(
                f"--data: {found.info.name} has other {name} than the run: "
                f"{_short(have)}, expected {_short(expected)}"
            )
    # Pictures are normalised as in training, whatever this data's own moments are.
    found.info.mean[:], found.info.std[:] = trained.info.mean, trained.info.std
    classes = len(found.info.classes)
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    loss = top5 = 0.0
    for images, labels in found.test_batches(BATCH, torch.device(config.device)):
        logits = trained.model(images).float()
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        best = logits.topk(min(5, classes)).indices
        top5 += int((best == labels[:, None]).sum())
        confusion += torch.bincount((labels * classes + best[:, 0]).cpu(), minlength=classes**2)
    seen = max(1, int(confusion.sum()))
    return Evaluation(loss / seen, top5 / seen, found.info.classes, confusion.view(classes, -1))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """Writes the confusion matrix as a picture; each row is the share of its class.

    Raises: UserError if the file cannot be written.
    """
    from matplotlib.figure import Figure

    shares = evaluation.confusion / evaluation.confusion.sum(1, keepdim=True).clamp_min(1)
    count = len(evaluation.classes)
    side = min(12.0, 2.5 + 0.55 * count)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, label="share of the class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if count <= _LABELLED:
        axes.set_xticks(range(count), evaluation.classes, rotation=45, ha="right")
        axes.set_yticks(range(count), evaluation.classes)
        for (i, j), share in ((divmod(k, count), float(v)) for k, v in enumerate(shares.view(-1))):
            if number := int(evaluation.confusion[i, j]):
                color = "white" if share > 0.5 else "black"
                axes.text(j, i, str(number), ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)
