"""Models of torchvision and timm with random weights, and a small batch for each."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import detection, segmentation
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

CLASSES = 4
PIXELS = 64
SEED = 5

TORCHVISION = (
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121",
    "regnet_y_400mf", "mobilenet_v2",
)  # fmt: skip
SEGMENTATION = ("fcn_resnet50", "deeplabv3_resnet50")
DETECTION = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn")
# With weights=None torchvision's builders take BatchNorm2d; with weights it is FrozenBatchNorm2d.
FROZEN = {
    "fasterrcnn_resnet50_fpn, frozen": detection.FasterRCNN,
    "retinanet_resnet50_fpn, frozen": detection.RetinaNet,
    "maskrcnn_resnet50_fpn, frozen": detection.MaskRCNN,
}
TIMM = (
    "resnet18", "resnet26", "resnet50", "resnet18d", "resnet26d", "resnet50d", "seresnet18",
    "seresnext26d_32x4d", "seresnext50_32x4d", "resnext50_32x4d", "res2net50_26w_4s",
    "res2net50d", "res2next50", "resnetv2_18", "resnetv2_50", "resnetv2_50d", "ecaresnet26t",
    "ecaresnet50d", "gcresnext26ts", "gcresnet50t", "skresnet18", "tresnet_m", "resnetblur18",
    "wide_resnet50_2", "resnest14d", "densenet121", "regnetx_002", "mobilenetv3_small_050",
)  # fmt: skip
# Sizes that keep a detector's forward short; the numbers of classes and proposals are free.
_SMALL: dict[str, Any] = {"min_size": PIXELS, "max_size": PIXELS, "num_classes": CLASSES}
_FEW_PROPOSALS = {
    f"rpn_{when}_nms_top_n_{mode}": 32 for when in ("pre", "post") for mode in ("train", "test")
}
_NO_WEIGHTS = {"weights": None, "weights_backbone": None}


class Entry(NamedTuple):
    """A model: library, name, what it is for, and how it is built."""

    library: str
    name: str
    task: str
    build: Callable[[], nn.Module]


def entries() -> list[Entry]:
    """All models, in the order of the table."""

    def torchvision_model(name: str) -> nn.Module:
        return getattr(torchvision.models, name)(weights=None, num_classes=CLASSES)

    def segmenter(name: str) -> nn.Module:
        make = getattr(segmentation, name)
        return make(**_NO_WEIGHTS, num_classes=CLASSES, aux_loss=True)

    def detector(name: str) -> nn.Module:
        return getattr(detection, name)(**_NO_WEIGHTS, **_detector_options(name))

    def frozen(name: str) -> nn.Module:
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d
        )
        return FROZEN[name](backbone, **_detector_options(name))

    def timm_model(name: str) -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=CLASSES)

    groups: list[tuple[str, str, Any, Callable[[str], nn.Module]]] = [
        ("torchvision", "classify", TORCHVISION, torchvision_model),
        ("torchvision", "segment", SEGMENTATION, segmenter),
        ("torchvision", "detect", DETECTION, detector),
        ("torchvision", "detect", FROZEN, frozen),
        ("timm", "classify", TIMM, timm_model),
    ]
    return [
        Entry(library, name, task, functools.partial(_prepared, make, name))
        for library, task, names, make in groups
        for name in names
    ]


def _detector_options(name: str) -> dict[str, Any]:
    """No threshold on scores: a model with random weights would else find nothing."""
    if "retina" in name:
        return {**_SMALL, "score_thresh": 0.0, "topk_candidates": 32}
    return {**_SMALL, **_FEW_PROPOSALS, "box_score_thresh": 0.0}


def _prepared(make: Callable[[str], nn.Module], name: str) -> nn.Module:
    """The model with seeded norms off their initial values, and without dropout.

    A random mask follows the memory layout, in which a stock and a fused model differ.
    """
    model, draw = make(name), torch.Generator().manual_seed(SEED)

    def uniform(value: Tensor, low: float, high: float) -> None:
        value.data = torch.rand(value.shape, generator=draw) * (high - low) + low

    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
        elif isinstance(module, FrozenBatchNorm2d):
            uniform(module.weight, 0.2, 0.6)
            uniform(module.bias, -0.2, 0.2)
            uniform(module.running_mean, -0.2, 0.2)
            uniform(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.2, 0.2)
    return model


def batch(task: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(inputs, targets) of two seeded images."""
    draw = torch.Generator().manual_seed(SEED)
    images = torch.randn(2, 3, PIXELS, PIXELS, generator=draw).to(dtype)
    if task == "classify":
        return images, torch.tensor([1, 3])
    labels = torch.randint(CLASSES, (2, PIXELS, PIXELS), generator=draw)
    if task == "segment":
        return images, labels
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]], dtype=dtype)
    masks = torch.zeros(2, PIXELS, PIXELS, dtype=torch.uint8)
    masks[0, 6:50, 4:40], masks[1, 10:30, 20:60] = 1, 1
    target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}
    return list(images), [target, target]


def loss(model: nn.Module, task: str, inputs: Any, targets: Any) -> Tensor:
    """The usual training loss; detectors draw their samples from the seed."""
    torch.manual_seed(SEED)
    if task == "detect":
        return torch.stack(list(model(inputs, copy.deepcopy(targets)).values())).sum()
    out = model(inputs)
    outs = list(out.values()) if isinstance(out, dict) else [out]
    return torch.stack([F.cross_entropy(value, targets) for value in outs]).sum()
