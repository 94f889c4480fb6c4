// c [M, N] fp32 = a [M, K] b [K, N], fp16 or bf16, row-major, by nvcuda::wmma: straight from global
// memory, and through shared memory in a pipeline of cp.async copies.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <mma.h>

using namespace nvcuda;

template <class T>
using FragmentA = wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major>;
template <class T>
using FragmentB = wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major>;
using FragmentC = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;

// One warp a block, one 16 x 16 tile a warp.
template <class T>
__global__ void wmma_gemm(const T* a, const T* b, float* c, int n, int k) {
  FragmentA<T> fa;
  FragmentB<T> fb;
  FragmentC acc;
  wmma::fill_fragment(acc, 0.f);
  for (int i = 0; i < k; i += 16) {
    wmma::load_matrix_sync(fa, a + blockIdx.x * 16 * k + i, k);
    wmma::load_matrix_sync(fb, b + i * n + blockIdx.y * 16, n);
    wmma::mma_sync(acc, fa, fb, acc);
  }
  wmma::store_matrix_sync(c + blockIdx.x * 16 * n + blockIdx.y * 16, acc, n, wmma::mem_row_major);
}

// Four warps, a 64 x 32 tile in steps of 16, kStages tiles in flight.
template <class T, int kStages>
__global__ void pipelined_gemm(const T* a, const T* b, float* c, int n, int k) {
  __shared__ __align__(16) T tile_a[kStages][64][16], tile_b[kStages][16][32];
  int t = threadIdx.x, warp = t / 32, steps = k / 16;
  a += blockIdx.x * 64 * k;
  b += blockIdx.y * 32;
  auto issue = [&](int s) {
    int r = t / 2, q = t % 2 * 8;
    __pipeline_memcpy_async(&tile_a[s % kStages][r][q], a + r * k + s * 16 + q, 16);
    if (t < 64) {
      r = t / 4, q = t % 4 * 8;
      __pipeline_memcpy_async(&tile_b[s % kStages][r][q], b + (s * 16 + r) * n + q, 16);
    }
  };
  FragmentC acc[2];
  for (auto& f : acc) wmma::fill_fragment(f, 0.f);
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) issue(s);
    __pipeline_commit();
  }
  for (int s = 0; s < steps; ++s) {
    __pipeline_wait_prior(kStages - 2);
    __syncthreads();
    FragmentA<T> fa;
    wmma::load_matrix_sync(fa, &tile_a[s % kStages][warp * 16][0], 16);
    for (int j = 0; j < 2; ++j) {
      FragmentB<T> fb;
      wmma::load_matrix_sync(fb, &tile_b[s % kStages][0][j * 16], 32);
      wmma::mma_sync(acc[j], fa, fb, acc[j]);
    }
    if (s + kStages - 1 < steps) issue(s + kStages - 1);
    __pipeline_commit();
  }
  __syncthreads();
  // Through shared memory, so that rows of 32 are stored at once.
  float (*out)[32] = reinterpret_cast<float (*)[32]>(&tile_a[0][0][0]);
  static_assert(sizeof tile_a >= 16 * 32 * 4, "one warp's rows fit");
  for (int w = 0; w < 4; ++w) {
    if (w == warp)
      for (int j = 0; j < 2; ++j)
        wmma::store_matrix_sync(&out[0][j * 16], acc[j], 32, wmma::mem_row_major);
    __syncthreads();
    for (int i = t; i < 16 * 32; i += 128)
      c[(blockIdx.x * 64 + w * 16 + i / 32) * n + blockIdx.y * 32 + i % 32] = out[i / 32][i % 32];
    __syncthreads();
  }
}

void* g_kernels[] = {(void*)wmma_gemm<__half>, (void*)wmma_gemm<__nv_bfloat16>,
                     (void*)pipelined_gemm<__half, 2>, (void*)pipelined_gemm<__nv_bfloat16, 3>,
                     (void*)pipelined_gemm<__half, 4>};
