// bn_finalize: statistics [G, 3, C] of several groups -> mean, rstd, scale, bias [C], count [1];
// running statistics updated as torch does, with the unbiased variance. Computed in fp64.
// One block: num_batches_tracked must be read by all threads before one counts it up.
#include "bn_finalize.h"
#include "launch.h"
#include "moments.cuh"
#include "vector_value.cuh"

namespace rnk::cuda {
namespace {

constexpr int kThreads = 512;

struct Statistics {
  double count;
  Moments<double> moments;
};

// All groups of channel c.
template <typename T>
__device__ inline Statistics merge_groups(const BnFinalizeParams& p, int64_t c) {
  Statistics all{};
  const T* row = static_cast<const T*>(p.stats) + c;
  for (int64_t g = 0; g < p.groups; ++g, row += 3 * p.channels) {
    const double more = row[0];
    if (more == 0) continue;
    const double share = more / (all.count + more);
    all.moments.merge({row[p.channels], 0, row[2 * p.channels]}, share, all.count * share);
    all.count += more;
  }
  return all;
}

// running += factor * (value - running), in the form that torch computes.
__device__ inline void blend(const VectorInOut& running, int64_t c, double value, double factor) {
  if (running.data == nullptr) return;
  const double old = get(running.data, running.dtype, c);
  put(running.data, running.dtype, c, old * (1 - factor) + value * factor);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) bn_finalize_channels(const BnFinalizeParams p) {
  double factor = p.has_momentum ? p.momentum : 0;
  if (p.num_batches_tracked != nullptr) {
    const int64_t batches = *p.num_batches_tracked + 1;
    if (!p.has_momentum) factor = 1 / static_cast<double>(batches);
    __syncthreads();
    if (threadIdx.x == 0) *p.num_batches_tracked = batches;
  }
  if (threadIdx.x == 0 && p.channels == 0) *static_cast<T*>(p.count) = T(0);
  for (int64_t c = threadIdx.x; c < p.channels; c += kThreads) {
    const Statistics all = merge_groups<T>(p, c);
    const double mean = all.moments.mean + all.moments.low;
    store_affine<T>(p, c, mean, all.moments.m2 / (all.count < 1 ? 1 : all.count));
    if (c == 0) *static_cast<T*>(p.count) = static_cast<T>(all.count);
    if (all.count == 0) continue;
    blend(p.running_mean, c, mean + get(p.conv_bias, c, 0), factor);
    blend(p.running_var, c, all.moments.m2 / (all.count - 1), factor);
  }
}

}  // namespace

void bn_finalize(const BnFinalizeParams& params, cudaStream_t stream) {
  if (params.dtype == DType::kFloat64) {
    bn_finalize_channels<double><<<1, kThreads, 0, stream>>>(params);
  } else {
    bn_finalize_channels<float><<<1, kThreads, 0, stream>>>(params);
  }
}

}  // namespace rnk::cuda
