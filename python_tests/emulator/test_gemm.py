"""nvcuda::wmma and cp.async pipelines through nvcc: exact products of small integers."""

import re

import numpy as np
import pytest
from exact import bf16
from toolchains import nvcc_file_ptx

from resnet_kernels import emulator

# name of the element type in mangled names -> bits of a float32 matrix
TYPES = {"6__half": lambda x: x.astype(np.float16), "13__nv_bfloat16": bf16}


def launcher(kernel, element, stages, m, n, k):
    """PTX, mangled name, function that launches a PTX text, result and expectation."""
    ptx = nvcc_file_ptx("gemm.cu")
    name = re.search(rf"\.entry (_Z\d+{kernel}I{element}{stages}\w*)", ptx)[1]
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-4, 5, s).astype(np.float32) for s in ((m, k), (k, n)))
    a_bits, b_bits = (TYPES[element](x.ravel()).reshape(x.shape) for x in (a, b))
    c = np.full((m, n), np.nan, np.float32)
    grid, block = ((m // 16, n // 16), 32) if kernel == "wmma_gemm" else ((m // 64, n // 32), 128)
    args = [a_bits, b_bits, c, np.int32(n), np.int32(k)]

    def run(text, seed=0):
        return emulator.launch(text, name, grid, block, args, seed=seed)

    return ptx, name, run, c, a @ b


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (48, 32, 80), (64, 64, 32)])
def test_wmma_gemm(element, m, n, k):
    ptx, _, run, c, expected = launcher("wmma_gemm", element, "", m, n, k)
    counters = run(ptx)
    np.testing.assert_array_equal(c, expected)
    assert counters.mma_multiply_adds == m * n * k


PIPELINES = [("6__half", "Li2E"), ("13__nv_bfloat16", "Li3E"), ("6__half", "Li4E")]


@pytest.mark.parametrize(("element", "stages"), PIPELINES)
@pytest.mark.parametrize("k", [16, 32, 48, 112])
def test_pipelined_gemm(element, stages, k):
    ptx, _, run, c, expected = launcher("pipelined_gemm", element, stages, 64, 64, k)
    for seed in range(3):
        c[:] = np.nan
        run(ptx, seed)
        np.testing.assert_array_equal(c, expected)
