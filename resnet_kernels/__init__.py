"""Fused convolution, batch norm, activation and residual kernels for ResNets.

`fuse(model)` swaps them into a model, `explain(model)` tells what happened, `models` has the
networks, `ops` the functions. Importing needs torch alone; `info.collect()` says what is installed.
"""

__version__ = "0.1.0"

from . import info, models, nn, ops, reference
from .fusion import explain, fuse, unfuse

__all__ = ["explain", "fuse", "info", "models", "nn", "ops", "reference", "unfuse"]
