// What compilers make of less common CUDA: calls, tables, local arrays, double and 64-bit atomics,
// intrinsics, inline PTX, printf, assert. Each kernel takes int* or double* in and out.
#include <assert.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdio.h>

#define KERNEL extern "C" __global__ void

struct Pair {
  double a;
  int b;
};
__device__ __noinline__ Pair split(double x, int k) { return {x * k, k - (int)x}; }
__device__ __noinline__ int collatz(int n) {
  int steps = 0;
  for (; n != 1; n = n % 2 ? 3 * n + 1 : n / 2) ++steps;
  return steps;
}
KERNEL calls(const int* in, int* out) {
  int t = threadIdx.x;
  Pair p = split(in[t] + 0.5, t);
  out[t] = (int)p.a + p.b;
  if (t % 3 == 0) out[t] += collatz(t + 1);
}

__constant__ int c_table[8] = {3, 1, 4, 1, 5, 9, 2, 6};
KERNEL tables(const int* __restrict__ in, int* out) {
  int t = threadIdx.x, x = __ldg(in + t), r;
  switch (x & 15) {
    case 0:
      r = 5;
      break;
    case 1:
      r = x * 3;
      break;
    case 2:
      r = x ^ 77;
      break;
    case 3:
      r = c_table[x & 7];
      break;
    case 4:
      r = -x;
      break;
    case 5:
      r = x / 7;
      break;
    case 6:
      r = x % 7;
      break;
    case 7:
      r = __popc(x);
      break;
    case 8:
      r = __clz(x);
      break;
    case 9:
      r = __ffs(x);
      break;
    case 10:
      r = __brev(x);
      break;
    default:
      r = 1;
  }
  int local[16];
  for (int i = 0; i < 16; ++i) local[(i * 7) & 15] = x + i;
  out[t] = r + local[x & 15];
}

KERNEL intrinsics(const int* in, int* out) {
  int t = threadIdx.x, a = in[t], b = in[t ^ 1];
  unsigned long long w = (unsigned long long)a * 0x9E3779B97F4A7C15ull;
  out[t] = __byte_perm(a, b, 0x5140) + __funnelshift_l(a, b, t) + __mulhi(a, b) + __sad(a, b, 3) +
           (int)__umul64hi(w, w) + __vadd2(a, b) + __vmaxs2(a, b) + __dp4a(a, b, 7) +
           (int)(w / 1000003) + (int)((long long)w % 10007) + __hadd(a, b) + abs(a) + min(a, b) +
           __popcll(w) + __clzll(w);
}

KERNEL doubles(const double* in, double* out) {
  int t = threadIdx.x;
  double x = in[t];
  out[t] = pow(fabs(x) + 1, 1.5) + cbrt(x) + atan2(x, 2.0) + fma(x, x, 1.0) + rsqrt(x * x + 1) +
           tgamma(fabs(x) + 1) + __longlong_as_double(__double_as_longlong(x) & ~1ll) + floor(x) +
           rint(x) + ldexp(x, 3) + hypot(x, 2.0) + log1p(fabs(x)) + (double)(float)x + erfc(x);
}

KERNEL atomics(const double* in, double* out) {
  int t = threadIdx.x;
  auto words = reinterpret_cast<unsigned long long*>(out);
  atomicAdd(out, in[t]);
  atomicMax(words + 1, (unsigned long long)(in[t] + 100));
  atomicMin(reinterpret_cast<long long*>(out) + 2, (long long)in[t]);
  atomicXor(words + 3, 1ull << (t % 64));
  unsigned long long old = words[4 + t % 2], seen;
  do {
    seen = old;
    old = atomicCAS(words + 4 + t % 2, seen, seen * 3 + 1);
  } while (old != seen);
  atomicAdd(reinterpret_cast<__half2*>(out + 6), __floats2half2_rn(1.f, 2.f));
  atomicAdd(reinterpret_cast<__nv_bfloat16*>(out + 7), __float2bfloat16(1.f));
  atomicAdd(reinterpret_cast<float*>(out + 8), 0.5f);
}

KERNEL warp_masks(const int* in, int* out) {
  int t = threadIdx.x, lane = t % 32, x = in[t] & 3, r = 0;
  unsigned same = __match_any_sync(~0u, x);
  int leader = __ffs(same) - 1;
  r = __shfl_sync(same, in[t], leader);
  if (x == 1) {
    unsigned m = __activemask();
    for (int d = 1; d < 4; d *= 2) r += __shfl_xor_sync(m, lane, 0) * d;
    __syncwarp(m);
  } else {
    r += __popc(__ballot_sync(same, in[t] & 4)) + 1000 * __all_sync(same, in[t] > -100);
  }
  r += __reduce_add_sync(same, lane);
  out[t] = r;
}

KERNEL matrices(const int* in, int* out) {
  __shared__ __align__(16) int tile[8 * 4 * 4], back[8 * 4 * 4];
  int t = threadIdx.x, r[4];
  for (int i = 0; i < 4; ++i) tile[i * 32 + t] = in[i * 32 + t];
  __syncwarp();
  unsigned a = (unsigned)__cvta_generic_to_shared(&tile[t * 4]);
  unsigned b = (unsigned)__cvta_generic_to_shared(&back[t * 4]);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(a));
  for (int i = 0; i < 4; ++i) {
    int v = r[i];
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r[i]) : "r"(v));
  }
  // Rows of 16 bytes, lane l's words of matrix i at row l / 4.
  for (int i = 0; i < 4; ++i) back[i * 32 + t] = r[i];
  __syncwarp();
  out[t] = back[t] + (b & 0);
  for (int i = 1; i < 4; ++i) out[i * 32 + t] = back[i * 32 + t];
}

KERNEL prints(const int* in, int* out) {
  int t = threadIdx.x;
  if (t < 2) printf("thread %d has %d, %5.2f and %s\n", t, in[t], in[t] * 0.5, "text");
  assert(in[t] != 12345);
  out[t] = in[t];
}

// Three barriers by number, the halves of a block meeting in pairs, and an early exit.
KERNEL early_exit(const int* in, int* out) {
  __shared__ int sum[4];
  int t = threadIdx.x, w = t / 32;
  if (w == 3) return;
  int v = in[t];
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  if (t % 32 == 0) sum[w] = v;
  __syncthreads();
  out[t] = sum[0] + sum[1] + sum[2];
}
