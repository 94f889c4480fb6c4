"""Objects with host launch code run unchanged on the runtime shim, beside CUDA torch."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from toolchains import exported_symbols, host_library

SOURCE = r"""
#include <cub/cub.cuh>
#include <string.h>
#define EXPORT extern "C" __attribute__((visibility("default")))
static char g_error[2048];
EXPORT const char* last_error() { return g_error; }
template <class F> int on_device(const float* in, float* out, int n, int m, F f) {
  float *x, *y; void* temporary = nullptr; size_t bytes = 0;
  cudaMalloc(&x, n * 4); cudaMalloc(&y, m * 4);
  cudaMemcpyAsync(x, in, n * 4, cudaMemcpyHostToDevice, 0);
  cudaMemsetAsync(y, 255, m * 4, 0);
  cudaError_t e = f(temporary, bytes, x, y);
  if (!e && bytes) { cudaMalloc(&temporary, bytes); e = f(temporary, bytes, x, y); }
  strncpy(g_error, cudaGetErrorString(e), sizeof g_error - 1);
  cudaMemcpyAsync(out, y, m * 4, cudaMemcpyDeviceToHost, 0);
  cudaStreamSynchronize(0); cudaFree(x); cudaFree(y); cudaFree(temporary);
  return e;
}
EXPORT int device_sum(const float* in, float* out, int n) {
  return on_device(in, out, n, 1, [&](void* t, size_t& b, float* x, float* y) {
    return cub::DeviceReduce::Sum(t, b, x, y, n); });
}
EXPORT int device_scan(const float* in, float* out, int n) {
  return on_device(in, out, n, n, [&](void* t, size_t& b, float* x, float* y) {
    return cub::DeviceScan::InclusiveSum(t, b, x, y, n); });
}
template <int B> __global__ void block_scan(const float* x, float* y) {
  using Scan = cub::BlockScan<float, B>; __shared__ typename Scan::TempStorage t;
  float r; Scan(t).InclusiveSum(x[threadIdx.x], r); y[threadIdx.x] = r;
}
template <int B> __global__ void block_reduce(const float* x, float* y) {
  using Reduce = cub::BlockReduce<float, B>; __shared__ typename Reduce::TempStorage t;
  float r = Reduce(t).Sum(x[threadIdx.x]); if (threadIdx.x == 0) *y = r;
}
EXPORT int block_level(const float* in, float* out, int which) {
  return on_device(in, out, 192, 192, [&](void*, size_t& b, float* x, float* y) {
    b = 0;
    if (which) block_scan<192><<<1, 192>>>(x, y); else block_reduce<192><<<1, 192>>>(x, y);
    return cudaGetLastError(); });
}
__device__ float g_scale = 3;
__constant__ float g_offset[2] = {5, 7};
__global__ void reverse(const float* x, float* y, int n) {
  extern __shared__ float tile[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = x[i] * g_scale + g_offset[1];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = tile[n - 1 - i];
}
EXPORT int big_shared(const float* in, float* out, int n, int opt_in, int limit) {
  return on_device(in, out, n, n, [&](void*, size_t& b, float* x, float* y) {
    b = 0; float two = 2;
    cudaMemcpyToSymbol(g_scale, &two, 4);
    cudaFuncAttributes a; cudaFuncGetAttributes(&a, reverse);
    int blocks = 0, shared = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse, 128, n * 4);
    cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    if (a.maxThreadsPerBlock != 1024 || blocks < 1 || shared < n * 4) return cudaErrorUnknown;
    if (opt_in) cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, n * 4);
    cudaLaunchConfig_t c{}; c.gridDim = 1; c.blockDim = 128; c.dynamicSmemBytes = n * 4;
    cudaError_t e = cudaLaunchKernelEx(&c, reverse, (const float*)x, y, n + limit);
    cudaError_t last = cudaGetLastError();
    return e ? e : last; });
}
"""


def call(name, x, count, *more):
    library = host_library(SOURCE)
    out = np.full(count, np.nan, np.float32)
    code = getattr(library, name)(
        x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), *more
    )
    library.last_error.restype = ctypes.c_char_p
    return code, out, library.last_error().decode()


def integers(n):
    return np.random.default_rng(n).integers(-9, 9, n).astype(np.float32)


@pytest.mark.parametrize("n", [1, 31, 1000, 20000])
def test_cub_device_reduce_and_scan(n):
    x = integers(n)
    code, out, error = call("device_sum", x, 1, n)
    assert code == 0, error
    assert out[0] == x.sum()
    code, out, error = call("device_scan", x, n, n)
    assert code == 0, error
    np.testing.assert_array_equal(out, np.cumsum(x))


def test_cub_block_level():
    x = integers(192)
    code, out, error = call("block_level", x, 192, 0)
    assert code == 0, error
    assert out[0] == x.sum()
    assert (out[1:].view(np.uint32) == 0xFFFFFFFF).all()  # as cudaMemsetAsync left it
    code, out, error = call("block_level", x, 192, 1)
    assert code == 0, error
    np.testing.assert_array_equal(out, np.cumsum(x))


def test_dynamic_shared_memory_symbols_and_queries():
    x = integers(20000)
    code, out, error = call("big_shared", x, 20000, 20000, 1, 0)
    assert code == 0, error
    np.testing.assert_array_equal(out, (x * 2 + 7)[::-1])


def test_dynamic_shared_memory_needs_opting_in():
    code, _, error = call("big_shared", integers(20001), 20001, 20001, 0, 0)
    assert code != 0
    assert "cudaFuncSetAttribute" in error or "48 KB" in error


def test_an_error_in_the_kernel_reaches_the_host():
    code, _, error = call("big_shared", integers(512), 512, 512, 1, 1)
    assert code == 719
    assert "out of bounds" in error
    assert "reverse" in error


def test_works_beside_cuda_torch_and_exports_no_runtime_symbol():
    library = host_library(SOURCE)
    assert not [s for s in exported_symbols(library) if "cuda" in s.lower()]
    script = f"""
import torch, ctypes, numpy as np
torch.zeros(1)
library = ctypes.CDLL({library._name!r})
x, y = np.arange(192, dtype=np.float32), np.zeros(192, np.float32)
pointers = x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p)
assert library.block_level(*pointers, 1) == 0 and (y == np.cumsum(x)).all()
assert library.device_sum(*pointers, 192) == 0 and y[0] == x.sum()
x, y = np.arange(20000, dtype=np.float32), np.zeros(20000, np.float32)
pointers = x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p)
assert library.big_shared(*pointers, 20000, 1, 0) == 0 and (y == (x * 2 + 7)[::-1]).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
