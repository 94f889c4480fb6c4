// bn_act_bwd_reduce: g = dz * act'(t) and per channel the sums of g and of g * (y - mean) * rstd, t
// = scale * y + bias [+ residual | + scale2 * y2 + bias2] or its sign by mask. Activations [outer,
// channels, inner] in Element, vectors [channels] fp32 (fp64 for fp64). Memory bound: 2-3 reads, 1
// write. Threads and then blocks sum up their rows; where rows are split over blocks,
// stats_merge.cu sums the rest in fp64.
#include "act.cuh"
#include "bn_act_bwd_reduce.h"
#include "lane_tree.cuh"
#include "row_walk.cuh"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

constexpr int kBlocksPerSm = 2;  // 512 threads with 4 to 6 accesses each in flight
constexpr int kRowsEach =
    16;  // rows a thread at least: the end of a block costs about as much as 8

// One batch norm's part in t, and what its sums need.
template <typename T>
struct Side {
  T mean, scale, bias;

  __device__ void load(const BnSide& bn, int64_t channel) {
    mean = static_cast<const T*>(bn.mean)[channel];
    scale = static_cast<const T*>(bn.scale)[channel];
    bias = static_cast<const T*>(bn.bias)[channel];
  }
};

// t from y, and from the residual or the second batch norm's y2 in r.
template <typename T, int kWidth, bool kDual>
__device__ inline void pre_act(T (&t)[kWidth], const T (&y)[kWidth], const T (&r)[kWidth],
                               const Side<T> (&bn)[kWidth], const T (&scale2)[kWidth],
                               bool has_residual) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    t[i] = bn[i].scale * y[i] + bn[i].bias;
    if (kDual) t[i] += scale2[i] * r[i];
    if (!kDual && has_residual) t[i] += r[i];
  }
}

// dz -> g, by the bits of kWidth neighbours or by t.
template <typename T, int kWidth>
__device__ inline void grad(T (&dz)[kWidth], const T (&t)[kWidth], const BnActBwdReduceParams& p) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) dz[i] = act_grad(dz[i], t[i], p.act, static_cast<T>(p.slope));
}

// The mask's bits as a t that has their sign.
template <typename T, int kWidth>
__device__ inline void masked(T (&t)[kWidth], const uint8_t* mask, int64_t at) {
  const unsigned bits = static_cast<unsigned>(__ldg(mask + at / 8)) >> (at % 8);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) t[i] = (bits >> i & 1) ? T(1) : T(0);
}

// Adds the block's sums of one kind; the threads with threadIdx.y = 0 have the result.
template <typename T, int kWidth>
__device__ inline void sum_lanes(T (&sum)[kWidth], T (&shared)[kWidth][kRowThreads]) {
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWidth; ++i) shared[i][thread] = sum[i];
  merge_lanes([&](unsigned other) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) shared[i][thread] += shared[i][other];
  });
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum[i] = shared[i][thread];
}

// sums [gridDim.y, 2, channels], and sums2 of the second batch norm.
template <typename T, int kWidth>
__device__ inline void store_sums(const BnSide& bn, const T (&g)[kWidth], const T (&gx)[kWidth],
                                  int64_t channel, int64_t channels, T* sums) {
  sums += 2 * blockIdx.y * channels + channel;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    sums[i] = g[i];
    sums[channels + i] = gx[i] * static_cast<const T*>(bn.rstd)[channel + i];
  }
}

template <typename Element, int kWidth, bool kDual>
__global__ void __launch_bounds__(kRowThreads, kBlocksPerSm)
    bn_act_bwd_reduce_rows(const BnActBwdReduceParams p, const RowPlan plan, Compute<Element>* sums,
                           Compute<Element>* sums2) {
  using T = Compute<Element>;
  __shared__ T shared[kWidth][kRowThreads];
  Side<T> bn[kWidth];
  T mean2[kWidth], scale2[kWidth], sum[kWidth], sum_y[kWidth], sum_y2[kWidth];
  RowWalk<kWidth> walk(plan);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    sum[i] = sum_y[i] = sum_y2[i] = T(0);
    if (walk.left == 0) continue;
    bn[i].load(p.bn, walk.channel + i);
    if (!kDual) continue;
    mean2[i] = static_cast<const T*>(p.bn2.mean)[walk.channel + i];
    scale2[i] = static_cast<const T*>(p.bn2.scale)[walk.channel + i];
    bn[i].bias += static_cast<const T*>(p.bn2.bias)[walk.channel + i];
  }
  const void* other = kDual ? p.bn2.y : p.residual;
  const bool by_mask = p.mask != nullptr && (p.act == Act::kRelu || p.act == Act::kLeakyRelu);

#pragma unroll 2
  for (; walk.left > 0; walk.next()) {
    T g[kWidth], y[kWidth], r[kWidth], t[kWidth];
    load_vec(g, static_cast<const Element*>(p.dz) + walk.at);
    load_vec(y, static_cast<const Element*>(p.bn.y) + walk.at);
    if (kDual || (other != nullptr && !by_mask)) {
      load_vec(r, static_cast<const Element*>(other) + walk.at);
    }
    if (by_mask) {
      masked(t, p.mask, walk.at);
    } else {
      pre_act<T, kWidth, kDual>(t, y, r, bn, scale2, other != nullptr);
    }
    grad(g, t, p);
    if (p.g != nullptr) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) g[i] = to_compute(from_compute<Element>(g[i]));
      store_vec(static_cast<Element*>(p.g) + walk.at, g);
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      sum[i] += g[i];
      sum_y[i] += g[i] * (y[i] - bn[i].mean);
      if (kDual) sum_y2[i] += g[i] * (r[i] - mean2[i]);
    }
  }

  sum_lanes(sum, shared);
  sum_lanes(sum_y, shared);
  if (kDual) sum_lanes(sum_y2, shared);
  if (threadIdx.y > 0 || walk.channel >= plan.channels) return;
  store_sums(p.bn, sum, sum_y, walk.channel, plan.channels, sums);
  if (kDual) store_sums(p.bn2, sum, sum_y2, walk.channel, plan.channels, sums2);
}

// kWidth of the kernel that serves p.
int width_of(const BnActBwdReduceParams& p) {
  int width = 1;
  with_element(p.dtype, [&](auto element) { width = kAccess<decltype(element)>; });
  const bool wide = p.inner == 1 && p.channels % width == 0 && is_aligned(p.dz) &&
                    is_aligned(p.bn.y) && is_aligned(p.bn2.y) && is_aligned(p.residual) &&
                    is_aligned(p.g);
  return wide ? width : 1;
}

RowPlan plan_of(const BnActBwdReduceParams& p) {
  const int64_t blocks = int64_t{kBlocksPerSm} * multiprocessors();
  return plan_rows(p.outer, p.channels, p.inner, width_of(p), blocks, kRowsEach);
}

// Elements of one batch norm's partial sums.
int64_t partial_size(const BnActBwdReduceParams& p, int64_t parts) {
  return parts > 1 ? (parts + merge_scratch_rows(parts)) * 2 * p.channels : 0;
}

template <typename Element, int kWidth, bool kDual>
void launch_width(const BnActBwdReduceParams& p, cudaStream_t stream) {
  using T = Compute<Element>;
  const RowPlan plan = plan_of(p);
  const int64_t parts = plan.grid.y;
  T* sums = static_cast<T*>(parts > 1 ? p.workspace : p.bn.sums);
  T* sums2 = parts > 1 ? sums + partial_size(p, parts) : static_cast<T*>(p.bn2.sums);
  bn_act_bwd_reduce_rows<Element, kWidth, kDual>
      <<<plan.grid, plan.block, 0, stream>>>(p, plan, sums, sums2);
  if (parts == 1) return;
  merge_sums(sums, parts, 2, p.channels, p.bn.sums, p.dtype, stream);
  if (kDual) merge_sums(sums2, parts, 2, p.channels, p.bn2.sums, p.dtype, stream);
}

template <typename Element>
void launch(const BnActBwdReduceParams& p, cudaStream_t stream) {
  constexpr int kWide = kAccess<Element>;
  const bool dual = p.bn2.sums != nullptr;
  if (width_of(p) > 1) {
    return dual ? launch_width<Element, kWide, true>(p, stream)
                : launch_width<Element, kWide, false>(p, stream);
  }
  return dual ? launch_width<Element, 1, true>(p, stream)
              : launch_width<Element, 1, false>(p, stream);
}

}  // namespace

int64_t bn_act_bwd_reduce_workspace(const BnActBwdReduceParams& p) {
  if (p.channels == 0) return 0;
  const int64_t bytes = p.dtype == DType::kFloat64 ? 8 : 4, sides = p.bn2.sums != nullptr ? 2 : 1;
  return sides * partial_size(p, plan_of(p).grid.y) * bytes;
}

void bn_act_bwd_reduce(const BnActBwdReduceParams& params, cudaStream_t stream) {
  if (params.channels == 0) return;
  with_element(params.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
