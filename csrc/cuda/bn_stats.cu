// bn_stats: per channel count, mean and M2 = sum (x - mean)^2 of x [outer, channels, inner],
// reading x once: memory bound. A thread sums blocks of kBlockRows rows as differences from a
// pivot, the mean so far, and merges them by Chan's formula; so do the threads of a block. Where M
// is large and channels are few, rows are split over blocks, whose statistics stats_merge.cu
// merges; else the blocks, 128 bytes of channels wide, write the result.
#include "bn_stats.h"
#include "lane_tree.cuh"
#include "moments.cuh"
#include "row_walk.cuh"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

constexpr int kBlocksPerSm = 3;  // 768 threads with 4 accesses each in flight
constexpr int kBlockRows = 32;   // short enough that plain sums lose nothing
constexpr int kRowsEach = 16;    // rows a thread at least: a block's merge costs about as much as 8

// Sums of x - pivot and of its square over the next `rows` rows.
template <typename Element, int kWidth, typename T>
__device__ inline void add_rows(const Element* x, RowWalk<kWidth>& walk, int rows,
                                const T (&pivot)[kWidth], T (&sum)[kWidth], T (&square)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum[i] = square[i] = T(0);
#pragma unroll 4
  for (int r = 0; r < rows; ++r, walk.next()) {
    T value[kWidth];
    load_vec(value, x + walk.at);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const T d = value[i] - pivot[i];
      sum[i] += d;
      square[i] += d * d;
    }
  }
}

// The mean of the thread's first few rows: one alone may be an outlier, by which all differences
// from it would lose their digits. Zero where there are none.
template <typename Element, int kWidth, typename T>
__device__ inline void first_pivot(const Element* x, RowWalk<kWidth> walk, T (&pivot)[kWidth]) {
  T sum[kWidth], square[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pivot[i] = T(0);
  if (walk.left == 0) return;
  const int few = walk.left < 4 ? static_cast<int>(walk.left) : 4;
  add_rows(x, walk, few, pivot, sum, square);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pivot[i] = sum[i] / T(few);
}

// Statistics of the thread's rows.
template <typename Element, int kWidth, typename T>
__device__ inline void thread_stats(const Element* x, RowWalk<kWidth> walk,
                                    Moments<T> (&stats)[kWidth]) {
  T pivot[kWidth], sum[kWidth], square[kWidth];
  first_pivot(x, walk, pivot);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) stats[i] = {pivot[i], T(0), T(0)};
  T count = 0;
  while (walk.left > 0) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) pivot[i] = stats[i].mean;
    const int rows = walk.left < kBlockRows ? static_cast<int>(walk.left) : kBlockRows;
    add_rows(x, walk, rows, pivot, sum, square);
    const T inverse = T(1) / T(rows), share = T(rows) / (count + T(rows));
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const T shift = sum[i] * inverse, residue = square[i] - sum[i] * shift;
      stats[i].merge({pivot[i], shift, residue < T(0) ? T(0) : residue}, share, count * share);
    }
    count += T(rows);
  }
}

// x -> statistics [gridDim.y, 3, channels], one row of them for each block in y.
template <typename Element, int kWidth>
__global__ void __launch_bounds__(kRowThreads, kWidth == 8 ? 2 : kBlocksPerSm)
    bn_stats_rows(const Element* x, const RowPlan plan, Compute<Element>* out) {
  using T = Compute<Element>;
  __shared__ T counts[kRowThreads];
  __shared__ Moments<T> all[kWidth][kRowThreads];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  const RowWalk<kWidth> walk(plan);
  Moments<T> stats[kWidth];
  thread_stats(x, walk, stats);
  counts[thread] = static_cast<T>(walk.left);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) all[i][thread] = stats[i];
  merge_lanes([&](unsigned other) {
    const T count = counts[thread], more = counts[other];
    if (more == T(0)) return;
    const T share = more / (count + more);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) all[i][thread].merge(all[i][other], share, count * share);
    counts[thread] = count + more;
  });
  if (threadIdx.y > 0 || walk.channel >= plan.channels) return;
  out += 3 * blockIdx.y * plan.channels + walk.channel;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    out[i] = counts[thread];
    out[plan.channels + i] = all[i][thread].mean;
    out[2 * plan.channels + i] = all[i][thread].m2;
  }
}

// kWidth of the kernel that serves p.
int width_of(const BnStatsParams& p) {
  int width = 1;
  with_element(p.dtype, [&](auto element) { width = kAccess<decltype(element)>; });
  return p.inner == 1 && p.channels % width == 0 && is_aligned(p.x) ? width : 1;
}

RowPlan plan_of(const BnStatsParams& p) {
  const int64_t blocks = int64_t{kBlocksPerSm} * multiprocessors();
  return plan_rows(p.outer, p.channels, p.inner, width_of(p), blocks, kRowsEach);
}

template <typename Element>
void launch(const BnStatsParams& p, cudaStream_t stream) {
  const RowPlan plan = plan_of(p);
  const auto* x = static_cast<const Element*>(p.x);
  auto* out = static_cast<Compute<Element>*>(plan.grid.y > 1 ? p.workspace : p.stats);
  if (width_of(p) > 1) {
    bn_stats_rows<Element, kAccess<Element>><<<plan.grid, plan.block, 0, stream>>>(x, plan, out);
  } else {
    bn_stats_rows<Element, 1><<<plan.grid, plan.block, 0, stream>>>(x, plan, out);
  }
  if (plan.grid.y > 1) merge_stats(out, plan.grid.y, p.channels, p.stats, p.dtype, stream);
}

}  // namespace

int64_t bn_stats_workspace(const BnStatsParams& p) {
  if (p.channels == 0) return 0;
  const int64_t parts = plan_of(p).grid.y;
  const int64_t bytes = p.dtype == DType::kFloat64 ? 8 : 4;
  return parts > 1 ? (parts + merge_scratch_rows(parts)) * 3 * p.channels * bytes : 0;
}

void bn_stats(const BnStatsParams& params, cudaStream_t stream) {
  if (params.channels == 0) return;
  with_element(params.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
