"""torch's tf32 setting as compiled code sees it."""

from __future__ import annotations

import torch

from .layers import tf32_is_allowed


# dynamo cannot trace the setting: compiled code keeps the one it was compiled under.
@torch.compiler.assume_constant_result
def constant_tf32_is_allowed() -> bool:
    return tf32_is_allowed()
