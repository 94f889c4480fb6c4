"""The backends that op tests run on in this installation."""

from __future__ import annotations

# Test backend -> (the ops' `backend` argument, device).
BACKENDS = {"cpu": ("native", "cpu"), "cuda-emulated": ("emulated", "cpu")}


def available() -> list[str]:
    """Names of BACKENDS; the emulated one where the build had nvcc."""
    try:
        from resnet_kernels import emulator
    except ImportError:
        return ["cpu"]
    return [name for name in BACKENDS if name == "cpu" or emulator.has_kernels()]
