"""Kernels that the Triton compiler made for sm_80, against numpy, with every detector on."""

import functools
import re

import numpy as np
import pytest
import triton_kernels as kernels
from exact import bf16, bf16_to_float

from resnet_kernels import emulator

POINTERS = {"fp16": "*fp16", "bf16": "*bf16", "fp32": "*fp32"}


@functools.cache
def matmul_ptx(dtype, tile, warps, stages, aligned=False):
    """aligned: pointers and sizes divisible by 16, so that rows are copied by cp.async."""
    types = {
        "a": POINTERS[dtype],
        "b": POINTERS[dtype],
        "c": "*fp32",
        "M": "i32",
        "N": "i32",
        "K": "i32",
    }
    constants = dict(zip(("BM", "BN", "BK"), tile, strict=True))
    return kernels.compile_ptx(
        kernels.matmul, types, constants, aligned, num_warps=warps, num_stages=stages
    )


def run(compiled, grid, args, seed=0, ptx=None):
    text, name, threads, shared = compiled
    params = re.search(rf"\.entry {name}\((.*?)\)", text, re.S)[1].count(".param")
    args = [*args, *[None] * (params - len(args))]  # Triton adds scratch pointers
    return emulator.launch(ptx or text, name, grid, threads, args, shared, seed=seed)


def operands(dtype, m, n, k, seed):
    """Sparse small integers: every product and sum is exact in every dtype."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-4, 5, s).astype(np.float32) for s in ((m, k), (k, n)))
    if dtype == "fp16":
        return a, b, a.astype(np.float16), b.astype(np.float16)
    if dtype == "bf16":
        return a, b, bf16(a.ravel()).reshape(a.shape), bf16(b.ravel()).reshape(b.shape)
    return a, b, a, b


@pytest.mark.parametrize("size", [(64, 64, 64), (70, 45, 83), (1, 1, 1)])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("tile", "warps"), [((32, 32, 32), 2), ((64, 32, 16), 4), ((128, 64, 32), 8)]
)
@pytest.mark.parametrize("dtype", POINTERS)
def test_matmul(dtype, tile, warps, stages, size):
    if warps == 8 and stages in (2, 4):
        size = (size[0], size[1], max(1, size[2] // 2))
    m, n, k = size
    a, b, a_bits, b_bits = operands(dtype, m, n, k, 1)
    c = np.full((m, n), np.nan, np.float32)
    compiled = matmul_ptx(dtype, tile, warps, stages)
    grid = (-(-m // tile[0]), -(-n // tile[1]))
    counters = run(compiled, grid, [a_bits, b_bits, c, *map(np.int32, (m, n, k))])
    np.testing.assert_array_equal(c, a @ b)
    padded = grid[0] * tile[0] * grid[1] * tile[1] * -(-k // tile[2]) * tile[2]
    assert counters.mma_multiply_adds == padded


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize(("tile", "warps"), [((32, 32, 32), 2), ((128, 64, 64), 8)])
@pytest.mark.parametrize("dtype", POINTERS)
def test_matmul_with_vector_copies(dtype, tile, warps, stages):
    m, n, k = 80, 96, 208
    a, b, a_bits, b_bits = operands(dtype, m, n, k, 3)
    c = np.full((m, n), np.nan, np.float32)
    compiled = matmul_ptx(dtype, tile, warps, stages, True)
    assert stages == 1 or "cp.async.cg" in compiled[0]
    grid = (-(-m // tile[0]), -(-n // tile[1]))
    run(compiled, grid, [a_bits, b_bits, c, *map(np.int32, (m, n, k))], seed=stages)
    np.testing.assert_array_equal(c, a @ b)


def test_matmul_of_real_numbers_is_as_exact_as_its_operands():
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((64, 96), (96, 64)))
    a_bits, b_bits = bf16(a.ravel()).reshape(a.shape), bf16(b.ravel()).reshape(b.shape)
    c = np.zeros((64, 64), np.float32)
    run(
        matmul_ptx("bf16", (32, 32, 32), 2, 3),
        (2, 2),
        [a_bits, b_bits, c, *map(np.int32, (64, 64, 96))],
    )
    exact = bf16_to_float(a_bits).astype(np.float64) @ bf16_to_float(b_bits)
    np.testing.assert_allclose(c, exact, rtol=0, atol=1e-5)


def row_kernel(kernel, types, block, warps=4, **constants):
    return kernels.compile_ptx(kernel, types, {"B": block, **constants}, num_warps=warps)


@pytest.mark.parametrize(("n", "block", "warps"), [(1000, 1024, 4), (17, 32, 1), (513, 1024, 8)])
def test_softmax(n, block, warps):
    compiled = row_kernel(kernels.softmax, {"x": "*fp32", "y": "*fp32", "n": "i32"}, block, warps)
    x = np.random.default_rng(3).standard_normal((5, n)).astype(np.float32)
    y = np.full_like(x, np.nan)
    run(compiled, 5, [x, y, np.int32(n)])
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-6)


def test_layer_norm_forward_and_backward():
    rows, n = 6, 300
    rng = np.random.default_rng(4)
    x, dy = (rng.standard_normal((rows, n)).astype(np.float32) for _ in range(2))
    w, b = (rng.standard_normal(n).astype(np.float32) for _ in range(2))
    y, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
    mean, rstd = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    names = dict.fromkeys(["x", "w", "b", "y", "mean", "rstd"], "*fp32")
    forward = row_kernel(kernels.layer_norm, {**names, "n": "i32", "eps": "fp32"}, 512)
    run(forward, rows, [x, w, b, y, mean, rstd, np.int32(n), np.float32(1e-5)])
    v = x.astype(np.float64)
    m, r = v.mean(1, keepdims=True), 1 / np.sqrt(v.var(1, keepdims=True) + 1e-5)
    h = (v - m) * r
    np.testing.assert_allclose(y, h * w + b, rtol=1e-5, atol=1e-5)
    dw, db = np.zeros(n, np.float32), np.zeros(n, np.float32)
    names = dict.fromkeys(["dy", "x", "w", "mean", "rstd", "dx", "dw", "db"], "*fp32")
    backward = row_kernel(kernels.layer_norm_bwd, {**names, "rows": "i32", "n": "i32"}, 512, R=1)
    run(backward, 1, [dy, x, w, mean, rstd, dx, dw, db, np.int32(rows), np.int32(n)])
    t = dy.astype(np.float64) * w
    expected = (t - (h * (h * t).mean(1, keepdims=True) + t.mean(1, keepdims=True))) * r
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dw, (dy * h).sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(db, dy.astype(np.float64).sum(0), rtol=1e-4, atol=1e-5)


def test_cumsum_and_argmax():
    x = np.random.default_rng(5).integers(-9, 9, (4, 700)).astype(np.float32)
    y = np.full_like(x, np.nan)
    compiled = row_kernel(kernels.scan, {"x": "*fp32", "y": "*fp32", "n": "i32"}, 1024)
    run(compiled, 4, [x, y, np.int32(700)])
    np.testing.assert_array_equal(y, np.cumsum(x, 1))
    index = np.zeros(4, np.int32)
    compiled = row_kernel(kernels.argmax, {"x": "*fp32", "y": "*i32", "n": "i32"}, 1024)
    run(compiled, 4, [x, index, np.int32(700)])
    np.testing.assert_array_equal(index, x.argmax(1))
