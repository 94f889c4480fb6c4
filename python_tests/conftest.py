"""Fixtures of all tests: backend, seeded generator, reproducing line, NaN-filled torch.empty."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Tests are thousands of tiny parallel regions: threads that spin between them cost 5x on a busy
# machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import ptx_coverage
from backends import BACKENDS, available, of_public_ops, selected, using

from resnet_kernels.ops.library import triton_interpreted


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(ptx_coverage.OPTION, action="store_true", help="of a run of all tests")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ptx_coverage)


# Triton kernels cost seconds a test to compile or interpret: test_triton_ops.py is the short list.
if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_triton_*.py"]
elif triton_interpreted():
    # The interpreter has one tile for all, and compiles nothing.
    collect_ignore = ["test_triton_tuning.py", "test_triton_resources.py"]


# Fixtures that run a test on a backend.
ON_BACKEND = {"each_backend", "case", "backend", "triton_backend", "igemm_backend"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long list of cases runs only when asked for with -m full.

    Under RNK_TEST_BACKENDS, of the tests, those that run on a backend.
    """
    if selected():
        others = [i for i in items if not ON_BACKEND & {*getattr(i, "fixturenames", ())}]
        config.hook.pytest_deselected(items=others)
        items[:] = [i for i in items if ON_BACKEND & {*getattr(i, "fixturenames", ())}]
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec and callspec.params.get("each_backend", "").startswith("triton"):
            item.add_marker(pytest.mark.full)
    if "full" in (config.getoption("-m") or ""):
        return
    kept = [item for item in items if item.get_closest_marker("full") is None]
    config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("full")])
    items[:] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests live as long as the session: garbage collections need not visit them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nan_prefill(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch.empty hands out NaN, so an output or workspace element that a kernel skips is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def ieee_fp32() -> Iterator[None]:
    """fp32 is fp32: torch's own convolutions and products on a GPU, and ours, round to tf32 if
    nobody says otherwise, and an error measured so would allow ours too much.

    By the one flag of cuDNN, which torch.export asks for; it refuses convolutions that differ.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.fp32_precision
    cudnn.allow_tf32, matmul.fp32_precision = False, "ieee"
    yield
    cudnn.allow_tf32, matmul.fp32_precision = before


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Commands that a test runs in this process may set their number: it is the test's alone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=available())
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once per backend; primitives by bn_cases.OPS are that backend's."""
    with using(request.param) as name:
        yield name


@pytest.fixture
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A conv_cases.Case, as conv_cases.over parametrizes it; primitives are its backend's."""
    if request.param.choice != "own":
        monkeypatch.setenv("RNK_CPU_CONV", request.param.choice)
    with using(request.param.backend):
        yield request.param


@pytest.fixture(params=of_public_ops())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name to pass as the `backend` argument of a public op; inputs.py draws on its device."""
    with using(request.param) as name:
        yield BACKENDS[name][0]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The test's own seed, from its name: fresh per case, the same in every run and under xdist."""
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def repro(request: pytest.FixtureRequest, seed: int) -> str:
    """The line to print in a failure."""
    return f"python -m pytest '{request.node.nodeid}'  # seed {seed}"
