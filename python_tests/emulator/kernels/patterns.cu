// Idioms of CUDA code, each with defects to plant: kBug 0 is correct, every other number leaves out
// or spoils one thing. The test table names what each defect must be reported as.
#include <assert.h>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <stdio.h>

namespace cg = cooperative_groups;

// Reduction over a grid: the block that takes the last ticket adds the partial sums. 4: a fence
// that is for its own block only.
template <int kBug>
__global__ void last_block(const float* x, float* part, float* y, unsigned* ticket, int n) {
  __shared__ float warp_sum[8];
  __shared__ bool last;
  float v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  for (int d = 16; d; d >>= 1) v += __shfl_down_sync(~0u, v, d);
  if (threadIdx.x % 32 == 0) warp_sum[threadIdx.x / 32] = v;
  if (kBug != 1) __syncthreads();
  if (threadIdx.x == 0) {
    float s = 0;
    for (int w = 0; w < blockDim.x / 32; ++w) s += warp_sum[w];
    part[blockIdx.x] = s;
    if (kBug == 4)
      __threadfence_block();
    else if (kBug != 2)
      __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  if (kBug != 3) __syncthreads();
  if (!last) return;
  float s = 0;
  for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) s += part[b];
  for (int d = 16; d; d >>= 1) s += __shfl_down_sync(~0u, s, d);
  __syncthreads();
  if (threadIdx.x % 32 == 0) warp_sum[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (int w = 0; w < blockDim.x / 32; ++w) total += warp_sum[w];
    *y = total;
  }
}

// Double-buffered tiles: one barrier a step is enough with two buffers, none is not.
template <int kBug>
__global__ void double_buffer(const float* x, float* y, int steps) {
  __shared__ float tile[2][128];
  int t = threadIdx.x;
  tile[0][t] = x[t];
  __syncthreads();
  float sum = 0;
  for (int s = 0; s < steps; ++s) {
    int here = kBug == 2 ? 0 : s & 1, next = kBug == 2 ? 0 : here ^ 1;
    if (s + 1 < steps) tile[next][t] = x[(s + 1) * 128 + t];
    sum += tile[here][127 - t] * (s + 1);
    if (kBug != 1) __syncthreads();
  }
  y[t] = sum;
}

// Warp 0 produces, warp 1 consumes; named barriers say full and empty.
template <int kBug>
__global__ void named_barriers(const int* x, int* y, int steps) {
  __shared__ int slot[32];
  int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    for (int s = 0; s < steps; ++s) {
      if (s > 0 && kBug != 1) asm volatile("bar.sync 2, 64;" ::: "memory");
      slot[lane] = x[s * 32 + lane];
      if (kBug != 3) asm volatile("bar.arrive 1, 64;" ::: "memory");
    }
  } else {
    for (int s = 0; s < steps; ++s) {
      if (kBug != 2) asm volatile("bar.sync 1, 64;" ::: "memory");
      y[s * 32 + lane] = slot[31 - lane];
      if (s + 1 < steps && kBug != 1) asm volatile("bar.arrive 2, 64;" ::: "memory");
    }
  }
}

// Split-K with a semaphore: blocks add their part to the output one after another.
template <int kBug>
__global__ void semaphore(const float* x, float* y, volatile int* turn, int n) {
  int t = threadIdx.x, k = blockIdx.x;
  if (t == 0 && kBug != 1)
    while (*turn != k) __nanosleep(20);
  __syncthreads();
  __threadfence();
  y[t] = (k ? y[t] : 0) + x[k * blockDim.x + t];
  if (kBug != 2 || t >= 32) __threadfence();
  if (kBug != 3) __syncthreads();
  if (t == 0) *turn = k + 1;
}

// Message by a volatile flag between two warps of a block.
template <int kBug>
__global__ void flag(const int* x, int* y) {
  __shared__ volatile int ready;
  __shared__ int data;
  if (threadIdx.x == 0) ready = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    data = *x;
    if (kBug != 1) __threadfence_block();
    ready = 1;
  } else if (threadIdx.x == 32) {
    while (!ready) {
    }
    if (kBug != 2) __threadfence_block();
    *y = data;
  }
}

// Warp-synchronous exchange through shared memory needs __syncwarp.
template <int kBug>
__global__ void warp_exchange(const int* x, int* y) {
  __shared__ int s[4][32];
  int w = threadIdx.x / 32, lane = threadIdx.x % 32;
  s[w][lane] = x[threadIdx.x];
  if (kBug != 1) __syncwarp();
  int v = s[w][lane ^ 7];
  if (kBug != 2) __syncwarp();
  s[w][lane] = v * 2;
  __syncwarp();
  y[threadIdx.x] = s[kBug == 3 ? w ^ 1 : w][(lane + 1) % 32];
}

// Tree reduction in shared memory.
template <int kBug>
__global__ void tree(const float* x, float* y, int n) {
  extern __shared__ float tree_shared[];
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  if (kBug != 3 || t < 100) tree_shared[t] = i < n ? x[i] : 0;
  __syncthreads();
  for (int d = blockDim.x / 2; d; d >>= 1) {
    if (t < d) {
      tree_shared[t] += tree_shared[t + (kBug == 4 ? 2 * d : d)];
      if (kBug == 2) __syncthreads();
    }
    if (kBug != 1 && kBug != 2) __syncthreads();
  }
  if (t == 0) y[blockIdx.x] = tree_shared[0];
}

// Histogram in shared memory by atomics, merged into global memory by atomics.
template <int kBug>
__global__ void histogram(const unsigned char* x, unsigned long long* y, int n) {
  __shared__ unsigned bins[256];
  for (int b = threadIdx.x; b < 256; b += blockDim.x) bins[b] = 0;
  if (kBug != 1) __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    if (kBug == 3)
      ++bins[x[i]];
    else
      atomicAdd(&bins[x[i]], 1u);
  }
  if (kBug != 2) __syncthreads();
  for (int b = threadIdx.x; b < 256; b += blockDim.x) {
    if (kBug == 4)
      y[b] += bins[b];
    else
      atomicAdd(&y[b], (unsigned long long)bins[b]);
  }
}

// Halo tile of a stencil, with bounds to forget.
template <int kBug>
__global__ void stencil(const float* x, float* y, int n) {
  __shared__ float tile[64 + 2];
  int t = threadIdx.x, i = blockIdx.x * 64 + t;
  tile[t + 1] = i < n ? x[i] : 0;
  if (t == 0) tile[0] = i > 0 || kBug == 2 ? x[i - 1] : 0;
  if (t == 63 && kBug != 4) tile[65] = i + 1 < n ? x[i + 1] : 0;
  if (kBug != 1) __syncthreads();
  if (kBug == 3 || i < n) y[i] = 0.25f * tile[t] + 0.5f * tile[t + 1] + 0.25f * tile[t + 2];
}

// Groups of cooperative_groups: tiles, coalesced threads, a reduction.
template <int kBug>
__global__ void groups(const int* x, int* y) {
  __shared__ int part[16];
  auto block = cg::this_thread_block();
  auto tile = cg::tiled_partition<16>(block);
  int v = cg::reduce(tile, x[block.thread_rank()], cg::plus<int>());
  if (tile.thread_rank() == 0) part[block.thread_rank() / 16] = v;
  if (kBug == 1)
    tile.sync();
  else
    block.sync();
  int sum = 0;
  for (int i = 0; i < block.size() / 16; ++i) sum += part[i];
  if (x[block.thread_rank()] & 1) {
    auto odd = cg::coalesced_threads();
    sum += odd.size() * 1000;
  }
  y[block.thread_rank()] = sum;
}

// cp.async in three stages, 8 and 16 bytes, with zero fill at the end.
template <int kBug>
__global__ void copies(const float2* x, float2* y, int n) {
  __shared__ float2 stage[3][64];
  int t = threadIdx.x, steps = (n + 63) / 64;
  auto issue = [&](int s) {
    int i = s * 64 + t, zero = kBug == 4 || i < n ? 0 : 8;
    __pipeline_memcpy_async(&stage[s % 3][t], x + (kBug == 4 || i < n ? i : 0), 8, zero);
  };
  for (int s = 0; s < 2; ++s) {
    if (s < steps) issue(s);
    __pipeline_commit();
  }
  for (int s = 0; s < steps; ++s) {
    if (kBug != 1) __pipeline_wait_prior(kBug == 3 ? 2 : 1);
    if (kBug != 2) __syncthreads();
    float2 v = stage[s % 3][t ^ 1];
    if (s * 64 + (t ^ 1) < n) y[s * 64 + (t ^ 1)] = make_float2(v.y, v.x);
    if (s + 2 < steps) issue(s + 2);
    __pipeline_commit();
  }
}

// Barriers that some threads miss, or that threads leave early.
template <int kBug>
__global__ void divergent(int* y) {
  int t = threadIdx.x;
  if (kBug == 1) {
    if (t < 16) __syncthreads();
  } else if (kBug == 2) {
    if (t < 16) __shfl_sync(~0u, t, 0);
  } else if (kBug == 3) {
    if (t % 32 < 8) __syncwarp(0xFFFF);
  } else if (kBug == 4) {
    if (t < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
  } else {
    if (t < 32) asm volatile("bar.sync 1, 32;" ::: "memory");
    if (t % 32 < 16) __syncwarp(0xFFFF);
  }
  y[t] = t;
}

#define VARIANTS(name) \
  (void*)name<0>, (void*)name<1>, (void*)name<2>, (void*)name<3>, (void*)name<4>
void* g_kernels[] = {VARIANTS(last_block), VARIANTS(double_buffer), VARIANTS(named_barriers),
                     VARIANTS(semaphore),  VARIANTS(flag),          VARIANTS(warp_exchange),
                     VARIANTS(tree),       VARIANTS(histogram),     VARIANTS(stencil),
                     VARIANTS(groups),     VARIANTS(copies),        VARIANTS(divergent)};
