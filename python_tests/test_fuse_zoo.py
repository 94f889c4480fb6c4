"""fuse() on FrozenBatchNorm2d, torchvision's detection and segmentation models, timm's families."""

from __future__ import annotations

# Batch norms in fused ops, and all of them.
FAMILIES = {
    "resnet18d": (22, 22),
    "seresnet18": (20, 20),
    "resnext26ts": None,
}
