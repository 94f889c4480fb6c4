"""Attention, sorting, locks and atomics by the Triton compiler: right, and no false alarm."""

import functools
import math

import numpy as np
import pytest
import triton_programs as programs
from exact import bf16, bf16_to_float
from test_triton_kernels import POINTERS, run
from triton_kernels import compile_ptx


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.cache
def compiled(name, types, constants, **options):
    return compile_ptx(getattr(programs, name), dict(types), dict(constants), **options)


def launch(name, types, constants, grid, args, seed=0, **options):
    run(compiled(name, tuple(types.items()), tuple(constants.items()), **options), grid, args, seed)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("dtype", POINTERS)
def test_attention(dtype, stages):
    n, d = 70, 64
    round_ = {
        "fp16": lambda x: (x.astype(np.float16),) * 2,
        "bf16": lambda x: (bits := bf16(x.ravel()).reshape(x.shape), bf16_to_float(bits)),
        "fp32": lambda x: (x, x),
    }[dtype]
    (q_bits, q), (k_bits, k), (v_bits, v) = (round_(normal(n, d, seed=i)) for i in range(3))
    o = np.full((n, d), np.nan, np.float32)
    types = dict.fromkeys("qkv", POINTERS[dtype]) | {"o": "*fp32", "n": "i32", "scale": "fp32"}
    args = [q_bits, k_bits, v_bits, o, np.int32(n), np.float32(0.125)]
    launch("attention", types, {"BM": 32, "BN": 32, "D": d}, 3, args, num_stages=stages)
    s = q.astype(np.float64) @ k.T * 0.125
    p = np.exp(s - s.max(1, keepdims=True))
    np.testing.assert_allclose(o, p / p.sum(1, keepdims=True) @ v, atol=2e-2)


@pytest.mark.parametrize("warps", [1, 4])
def test_sort(warps):
    x = normal(3, 100)
    y = np.zeros_like(x)
    types = {"x": "*fp32", "y": "*fp32", "n": "i32"}
    launch("sort", types, {"B": 128}, 3, [x, y, np.int32(100)], num_warps=warps)
    np.testing.assert_array_equal(y, np.sort(x, 1))


def test_histogram_and_gather():
    x, y = np.random.default_rng(0).integers(0, 16, 500).astype(np.int32), np.zeros(16, np.int32)
    types = {"x": "*i32", "y": "*i32", "n": "i32"}
    launch("histogram", types, {"B": 512, "H": 16}, 1, [x, y, np.int32(500)])
    np.testing.assert_array_equal(y, np.bincount(x, minlength=16))
    for size in (32, 512):
        values, out = normal(size), np.zeros(size, np.float32)
        index = np.random.default_rng(1).integers(0, size, size).astype(np.int32)
        types = {"x": "*fp32", "index": "*i32", "y": "*fp32"}
        launch("gather", types, {"B": size}, 1, [values, index, out])
        np.testing.assert_array_equal(out, values[index])


def test_atomics_and_loops():
    n = 1000
    x = (np.arange(n) % 5).astype(np.float32)
    total, most = np.zeros(1, np.float32), np.zeros(7, np.int32)
    types = {"x": "*fp32", "total": "*fp32", "most": "*i32", "n": "i32"}
    launch("atomics", types, {"B": 128}, 8, [x, total, most, np.int32(n)])
    assert total[0] == x.sum()
    np.testing.assert_array_equal(most, [(n - 1 - r) // 7 * 7 + r for r in range(7)])
    v = np.arange(128, dtype=np.int32)
    y = np.zeros_like(v)
    launch("halvings", {"x": "*i32", "y": "*i32"}, {"B": 128}, 1, [v, y])
    np.testing.assert_array_equal(y, v + int(math.log2(v.sum())))


def test_split_k_with_a_lock():
    rng = np.random.default_rng(2)
    a, b = (rng.integers(-3, 4, s).astype(np.float16) for s in ((32, 256), (256, 32)))
    types = {"a": "*fp16", "b": "*fp16", "c": "*fp32", "lock": "*i32", "K": "i32"}
    constants = {"BM": 32, "BN": 32, "BK": 32}
    for seed in range(3):
        c, lock = np.full((32, 32), np.nan, np.float32), np.zeros(1, np.int32)
        launch("split_k", types, constants, 4, [a, b, c, lock, np.int32(256)], seed)
        np.testing.assert_array_equal(c, a.astype(np.float32) @ b.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "m", "n", "k", "warps"),
    [
        ("fp16", 16, 16, 16, 1),
        ("fp16", 128, 128, 32, 8),
        ("fp16", 16, 64, 128, 4),
        ("fp16", 64, 128, 64, 2),
        ("fp32", 64, 16, 32, 4),
    ],
)
def test_dot(dtype, m, n, k, warps):
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-3, 4, s).astype(np.float32) for s in ((m, k), (k, n)))
    narrow = np.float16 if dtype == "fp16" else np.float32
    c = np.zeros((m, n), np.float32)
    types = {"a": POINTERS[dtype], "b": POINTERS[dtype], "c": "*fp32"}
    args = [a.astype(narrow), b.astype(narrow), c]
    launch("dot", types, {"M": m, "N": n, "K": k}, 1, args, num_warps=warps)
    np.testing.assert_array_equal(c, a @ b)


def test_transpose_and_functions():
    x, y = normal(64, 32), np.zeros((32, 64), np.float32)
    launch("transpose", {"x": "*fp32", "y": "*fp32"}, {"M": 64, "N": 32}, 1, [x, y])
    np.testing.assert_array_equal(y, x.T)
    x, y = normal(256), np.zeros(256, np.float32)
    launch("functions", {"x": "*fp32", "y": "*fp32"}, {"B": 256}, 1, [x, y])
    v = x.astype(np.float64)
    expected = 1 / (1 + np.exp(-v)) + [math.erf(t) for t in v] + np.sqrt(abs(v))
    expected += 1 / np.sqrt(v * v + 1) + np.cos(v) + np.log(v * v + 1) + np.floor(v) + 2**v
    np.testing.assert_allclose(y, expected, rtol=1e-5)
