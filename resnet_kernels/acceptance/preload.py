"""What every part imports, imported once for the parts of a dry run."""

import importlib.util

import torch

from .. import emulator
from . import parts

# Its first call imports torch.compile's settings, which takes a second.
torch.use_deterministic_algorithms(True)
torch.use_deterministic_algorithms(False)
for name in ("pytest", "triton.compiler"):
    if importlib.util.find_spec(name.partition(".")[0]) is not None:
        importlib.import_module(name)

__all__ = ["emulator", "parts"]
