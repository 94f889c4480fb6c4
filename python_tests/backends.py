"""The backends that op tests run on in this installation, and which tests of the slow ones run."""

from __future__ import annotations

import importlib.util

from resnet_kernels.ops.library import triton_interpreted

# Test backend -> (the ops' `backend` argument, device).
BACKENDS = {
    "cpu": ("native", "cpu"),
    "cuda-emulated": ("emulated", "cpu"),
    "triton-emulated": ("triton-emulated", "cpu"),
    "triton-interpreted": ("triton", "cpu"),
}


def available() -> list[str]:
    """Names of BACKENDS.

    Under TRITON_INTERPRET=1 the interpreted one alone: test_triton_interpreted.py starts a session
    with it. Emulated CUDA where the build had nvcc.
    """
    if triton_interpreted():
        return ["triton-interpreted"]
    try:
        from resnet_kernels import emulator
    except ImportError:
        return ["cpu"]
    names = ["cpu"]
    if emulator.has_kernels():
        names.append("cuda-emulated")
    if importlib.util.find_spec("triton") is not None:
        names.append("triton-emulated")
    return names
