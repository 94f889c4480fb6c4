"""Every barrier, fence and wait of compiled kernels is needed, or its redundancy is argued."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import test_triton_kernels as triton
import triton_kernels as kernels
from mutation import mutants, redundancy, survivors
from test_gemm import PIPELINES, launcher

ARGUED = set(
    re.findall(
        r"^\[(.*)\]$", Path(__file__).with_name("redundant_synchronisation.txt").read_text(), re.M
    )
)


def check(ptx, kernel, run, least):
    """Fails for a mutant that is neither reported nor argued."""
    assert len(list(mutants(ptx, kernel))) >= least
    silent = survivors(ptx, kernel, run)
    reasons = {name: redundancy(ptx, kernel, name) for name in silent}
    assert set(reasons.values()) <= ARGUED, reasons
    for name, reason in reasons.items():
        if reason == "newest group only":
            assert name.replace("raise", "delete") not in silent, name


def check_triton(compiled, grid, launches, least):
    def run(text, seed):
        for args in launches:
            triton.run(compiled, grid, args, seed, text)

    check(compiled[0], compiled[1], run, least)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("tile", "warps"),
    [((32, 32, 32), 2), pytest.param((64, 32, 64), 4, marks=pytest.mark.full)],
)
@pytest.mark.parametrize("aligned", [False, True], ids=["", "aligned"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_triton_matmul(dtype, aligned, tile, warps, stages):
    compiled = triton.matmul_ptx(dtype, tile, warps, stages, aligned)
    launches = []
    m, n = tile[:2]
    for k in (tile[2] * 6 - 16, tile[2] * 5, tile[2] * 4, tile[2] * 3, tile[2] * 2, 16):
        _, _, a, b = triton.operands(dtype, m, n, k, 6)
        c = np.zeros((m, n), np.float32)
        launches.append([a, b, c, *map(np.int32, (m, n, k))])
    least = 8 if stages > 1 and (aligned or dtype == "fp32") else 4
    check_triton(compiled, (1, 1), launches, least)


def floats(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def pointers(names):
    return dict.fromkeys(names.split(), "*fp32")


@pytest.mark.parametrize(("block", "warps"), [(1024, 4), (1024, 8), (64, 2)])
@pytest.mark.parametrize("name", ["softmax", "scan", "argmax", "layer_norm", "layer_norm_bwd"])
def test_triton_reductions(name, block, warps):
    n, size = block - 24, np.int32(block - 24)
    row = functools.partial(triton.row_kernel, block=block, warps=warps)
    x, y, w, v = floats(3, n), floats(3, n), floats(n), floats(3)
    types, args, constants = {
        "softmax": ({**pointers("x y"), "n": "i32"}, [x, y, size], {}),
        "scan": ({**pointers("x y"), "n": "i32"}, [x, y, size], {}),
        "argmax": ({"x": "*fp32", "y": "*i32", "n": "i32"}, [x, np.zeros(3, "i4"), size], {}),
        "layer_norm": (
            {**pointers("x w b y mean rstd"), "n": "i32", "eps": "fp32"},
            [x, w, w.copy(), y, v, v.copy(), size, np.float32(1e-5)],
            {},
        ),
        "layer_norm_bwd": (
            {**pointers("dy x w mean rstd dx dw db"), "rows": "i32", "n": "i32"},
            [x.copy(), x, w, v, v, y, w.copy(), w.copy(), np.int32(3), size],
            {"R": 1},
        ),
    }[name]
    grid = 1 if name == "layer_norm_bwd" else 3
    check_triton(row(getattr(kernels, name), types, **constants), grid, [args], 1)


@pytest.mark.parametrize(("element", "stages"), PIPELINES)
def test_nvcc_pipeline(element, stages):
    cases = [launcher("pipelined_gemm", element, stages, 64, 64, k) for k in (112, 80, 48, 16)]
    ptx, name = cases[0][:2]

    def run(text, seed):
        for case in cases:
            case[2](text, seed)

    check(ptx, name, run, 12)
