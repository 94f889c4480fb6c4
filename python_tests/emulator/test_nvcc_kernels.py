"""Small CUDA kernels through nvcc: right results, and right counts where they can be told."""

import math

import numpy as np
import pytest
from toolchains import nvcc_ptx

from resnet_kernels import emulator

SOURCE = r"""
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <mma.h>
#include <cooperative_groups.h>
extern "C" {
__global__ void add(const float* a, const float* b, float* c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}
__device__ __noinline__ float horner(float x, const float* c, int n) {
  float r = 0;
  for (int i = 0; i < n; ++i) r = r * x + c[i];
  return r;
}
__global__ void polynomial(const float* x, const float* c, float* y, int n) {
  y[threadIdx.x] = horner(x[threadIdx.x], c, n) + horner(2.f, c, threadIdx.x % 3);
}
__global__ void block_sum(const float* x, float* y, int n) {
  __shared__ float part[8];
  float v = 0;
  for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) v += x[i];
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < 8 ? part[threadIdx.x] : 0;
    for (int d = 4; d; d >>= 1) v += __shfl_down_sync(~0u, v, d);
    if (threadIdx.x == 0) atomicAdd(y, v);
  }
}
__global__ void pipelined_copy(const float4* x, float4* y, int tiles) {
  __shared__ float4 tile[3][64];
  int t = threadIdx.x;
  for (int s = 0; s < 2; ++s) {
    if (s < tiles) __pipeline_memcpy_async(&tile[s][t], x + s * 64 + t, 16);
    __pipeline_commit();
  }
  for (int s = 0; s < tiles; ++s) {
    __pipeline_wait_prior(1);
    __syncthreads();
    y[s * 64 + t] = tile[s % 3][63 - t];
    if (s + 2 < tiles) __pipeline_memcpy_async(&tile[(s + 2) % 3][t], x + (s + 2) * 64 + t, 16);
    __pipeline_commit();
  }
}
__global__ void last_block(const float* x, float* part, float* total, unsigned* ticket) {
  __shared__ bool last;
  float v = x[blockIdx.x * 32 + threadIdx.x];
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = v;
    __threadfence();
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float s = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) s += part[b];
    *total = s;
  }
}
struct Params { const double* x; __half2* h; __nv_bfloat16* b; double* y; int kind; float f[3]; };
__global__ void mixed(Params p) {
  int i = threadIdx.x;
  float spill[16];
  for (int k = 0; k < 16; ++k) spill[(k * 5) & 15] = k * p.f[k % 3];
  p.h[i] = __hfma2(p.h[i], p.h[i], __float2half2_rn(p.f[0]));
  p.b[i] = p.b[i] * p.b[i] + __float2bfloat16(p.f[1]);
  double v = p.x[i] / 3.0 + sqrt(p.x[i]) + spill[i & 15];
  switch (p.kind + (i & 3)) {
    case 0: v += 1; break;
    case 1: v *= 2; break;
    case 2: v = exp(v); break;
    case 3: v = log(v); break;
    case 4: v = sin(v); break;
  }
  p.y[i] = v;
}
__global__ void math(const float* x, float* y) {
  int i = threadIdx.x;
  float v = x[i];
  y[i] = expf(v); y[i + 64] = tanhf(v); y[i + 128] = erff(v); y[i + 192] = sinf(v);
  y[i + 256] = 1.f / (1.f + __expf(-v)); y[i + 320] = rsqrtf(v * v + 1); y[i + 384] = logf(v * v);
}
__global__ void transposed(const float* x, float* y) {
  __shared__ float tile[32][PAD];
  for (int r = threadIdx.y; r < 32; r += 8) tile[r][threadIdx.x] = x[r * 32 + threadIdx.x];
  cooperative_groups::this_thread_block().sync();
  for (int r = threadIdx.y; r < 32; r += 8) y[r * 32 + threadIdx.x] = tile[threadIdx.x][r];
}
}
"""


def ptx(pad=33):
    return nvcc_ptx(SOURCE.replace("PAD", str(pad)))


def rand(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_vector_add_counts_its_bytes():
    n = 1000
    a, b, c = rand(n), rand(n, seed=1), np.full(n, np.nan, np.float32)
    counters = emulator.launch(ptx(), "add", 4, 256, [a, b, c, np.int32(n)])
    np.testing.assert_array_equal(c, a + b)
    assert counters.distinct_bytes_read == 8 * n
    assert counters.distinct_bytes_written == 4 * n
    assert counters.global_store_sectors_ideal == 4 * n // 32


def test_device_function_calls():
    x, c, y = rand(64), rand(5, seed=1), np.zeros(64, np.float32)
    emulator.launch(ptx(), "polynomial", 1, 64, [x, c, y, np.int32(5)])
    expected = np.polyval(c.astype(np.float64), x)
    expected += [np.polyval(c[: i % 3].astype(np.float64), 2.0) if i % 3 else 0 for i in range(64)]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 255, 5000])
def test_reduction(n):
    x = np.random.default_rng(2).integers(-9, 9, n).astype(np.float32)
    y = np.zeros(1, np.float32)
    counters = emulator.launch(ptx(), "block_sum", 3, 256, [x, y, np.int32(n)])
    assert y[0] == x.sum()
    assert counters.atomics == 3
    assert counters.barriers == 24


@pytest.mark.parametrize("tiles", [1, 2, 3, 7])
def test_async_pipeline(tiles):
    x, y = rand(tiles, 64, 4), np.zeros((tiles, 64, 4), np.float32)
    emulator.launch(ptx(), "pipelined_copy", 1, 64, [x, y, np.int32(tiles)])
    np.testing.assert_array_equal(y, x[:, ::-1])


def test_last_block_reduction_needs_its_fence():
    x = np.random.default_rng(3).integers(-9, 9, (40, 32)).astype(np.float32)
    for seed in range(3):
        part, total, ticket = np.zeros(40, np.float32), np.zeros(1, np.float32), np.zeros(1, "u4")
        emulator.launch(ptx(), "last_block", 40, 32, [x, part, total, ticket], seed=seed)
        assert total[0] == x.sum()
    fences = [line for line in ptx().splitlines() if "membar" in line or "fence." in line]
    assert len(fences) == 1
    broken = ptx().replace(fences[0], "")
    with pytest.raises(emulator.EmulatorError) as failure:
        emulator.launch(broken, "last_block", 40, 32, [x, part, total, ticket])
    assert failure.value.kind == "race"


def test_struct_parameter_switch_double_half_and_local_memory():
    x = np.abs(rand(64).astype(np.float64)) + 0.5
    h, b = rand(128, seed=4).astype(np.float16), rand(64, seed=5)
    b_bits = (b.view(np.uint32) >> 16).astype(np.uint16)
    y, f = np.zeros(64), rand(3, seed=6)
    h2 = h.copy()
    b2 = b_bits.copy()
    pointers = np.array([a.ctypes.data for a in (x, h2, b2, y)], np.uint64)
    params = pointers.tobytes() + np.int32(1).tobytes() + f.tobytes()
    emulator.launch(ptx(), "mixed", 1, 64, [params], memory=[x, h2, b2, y])
    half = h.astype(np.float64) ** 2 + np.float64(np.float16(f[0]))
    np.testing.assert_array_equal(h2, half.astype(np.float16))
    spill = np.array([k * f[k % 3] for k in range(16)], np.float32)
    order = np.array([spill[(i * 13) & 15] for i in range(16)])
    v = x / 3 + np.sqrt(x) + np.resize(order, 64)
    case = 1 + np.arange(64) % 4
    with np.errstate(invalid="ignore"):
        expected = np.select(
            [case == 1, case == 2, case == 3, case == 4], [v * 2, np.exp(v), np.log(v), np.sin(v)]
        )
    np.testing.assert_allclose(y, expected, rtol=1e-13)


def test_math_functions():
    x, y = rand(64) * 3, np.zeros((7, 64), np.float32)
    emulator.launch(ptx(), "math", 1, 64, [x, y])
    v = x.astype(np.float64)
    expected = [
        np.exp(v),
        np.tanh(v),
        [math.erf(t) for t in v],
        np.sin(v),
        1 / (1 + np.exp(-v)),
        1 / np.sqrt(v * v + 1),
        np.log(v * v),
    ]
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(("pad", "conflicts"), [(33, 1), (32, 32)])
def test_bank_conflicts_are_counted(pad, conflicts):
    x, y = rand(32, 32), np.zeros((32, 32), np.float32)
    counters = emulator.launch(ptx(pad), "transposed", 1, (32, 8), [x, y])
    np.testing.assert_array_equal(y, x.T)
    assert counters.shared_store_wavefronts == counters.shared_store_wavefronts_ideal == 32
    assert counters.shared_load_wavefronts == 32 * conflicts
    assert counters.shared_load_wavefronts_ideal == 32
