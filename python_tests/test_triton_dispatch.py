"""Who serves an op: Triton on a GPU where the CUDA library is absent, and where it is asked for.

No GPU: registrations are read in a process of their own, and what the dispatcher has for CUDA
tensors is called with CPU tensors, which the Triton kernels take too (on the emulator).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_kernels import _native
from resnet_kernels.ops import library
from resnet_kernels.ops.schemas import SCHEMAS

PACKAGE = Path(_native.__file__).parent
# Names of the ops of ours that run inside the `with`, with their namespace.
RECORDER = """
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace.startswith("resnet_kernels"):
            self.ops.add(f"{function.namespace}::{function._opname}")
        return function(*args, **(kwargs or {}))

from resnet_kernels.ops import bn_act, library
y = torch.randn(2, 3, 4, 4, requires_grad=True)
vectors = [torch.ones(3), torch.zeros(3), torch.zeros(3), torch.ones(3)]
"""


def run(code: str, folder: Path = PACKAGE.parent, **environment: str) -> str:
    """What Python code prints in a fresh process, with the package of `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def without_cuda(tmp_path: Path) -> Path:
    """The package as RNK_SKIP_CUDA=1 installs it."""
    (tmp_path / "resnet_kernels").mkdir()
    for path in PACKAGE.iterdir():
        if path.name not in ("_cuda.so", "_build.json", "__pycache__"):
            (tmp_path / "resnet_kernels" / path.name).symlink_to(path)
    return tmp_path


def test_without_the_cuda_library_triton_serves_cuda_tensors(without_cuda: Path) -> None:
    code = """
import torch
from resnet_kernels import _native, emulator, info
from resnet_kernels.ops import library
from resnet_kernels.ops.schemas import SCHEMAS

assert not _native.status()["cuda"].loaded
assert all(library.triton_serves(op, "cuda") and library.triton_fills(op) for op in SCHEMAS)
assert info.collect()["libraries"]["triton"]["default on a GPU for"] == list(SCHEMAS)

x, s, b = torch.randn(2, 3, 4, 4), torch.ones(3), torch.zeros(3)
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
op = torch.ops.resnet_kernels.bn_act_fwd.default
assert torch.equal(op.redispatch(cuda, x, s, b, None, None, None, 1, 0.0), x.relu())
assert library.fallback_counts() == {}
print(*(name for name, (executed, _) in emulator.coverage().items() if executed))
"""
    assert "_bn_act_fwd" in run(code, without_cuda)


@pytest.mark.skipif(not _native.status()["cuda"].loaded, reason="no CUDA library here")
def test_with_the_cuda_library_its_kernels_do() -> None:
    assert [op for op in SCHEMAS if library.triton_fills(op)] == []
    assert [op for op in SCHEMAS if library.triton_serves(op, "cuda")] == []


@pytest.mark.parametrize("how", ["RNK_BACKEND", "argument"])
def test_triton_is_there_by_choice(how: str) -> None:
    """Forward and backward; interpreted, so that the CPU tensors have Triton kernels."""
    argument = ', backend="triton"' if how == "argument" else ""
    environment = {"RNK_BACKEND": "triton"} if how == "RNK_BACKEND" else {"RNK_BACKEND": ""}
    code = f"""{RECORDER}
with Recorder() as recorder:
    bn_act(y, *vectors, training=True{argument}).sum().backward()
assert library.fallback_counts() == {{}}
print(library.default_backend(), *sorted(recorder.ops))
"""
    default, *ops = run(code, TRITON_INTERPRET="1", RNK_STRICT="1", **environment).split()
    assert default == ("triton" if how == "RNK_BACKEND" else "native")
    assert "resnet_kernels_triton::bn_act_bwd_reduce" in ops
    assert {op.split("::")[0] for op in ops} == {"resnet_kernels_triton"}


def test_the_choice_names_a_backend() -> None:
    code = f"""{RECORDER}
try:
    bn_act(y, *vectors, training=True)
except ValueError as error:
    print(error)
"""
    said = run(code, RNK_BACKEND="tritn")
    assert said.startswith("backend: expected one of") and said.strip().endswith("got 'tritn'")
