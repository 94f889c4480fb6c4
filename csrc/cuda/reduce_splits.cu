// reduce_splits: a thread per element of the filter; neighbours read neighbours.
#include <algorithm>

#include "reduce_splits.h"
#include "vec.cuh"

namespace rnk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;  // the rest in a grid-stride loop

template <typename Element>
__global__ void __launch_bounds__(kThreads) reduce_splits_kernel(const ReduceSplits p) {
  const int64_t columns = p.taps_h * p.taps_w * p.channels, total = p.rows * columns;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
#pragma unroll 1
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < total;
       at += step) {
    float sum = 0;
    for (int64_t split = 0; split < p.splits; ++split) sum += p.partials[split * total + at];
    const int64_t k = at / columns, column = at % columns;
    const int64_t c = column % p.channels, tap = column / p.channels;
    const int64_t r = tap / p.taps_w, s = tap % p.taps_w;
    static_cast<Element*>(
        p.dw)[k * p.strides.k + c * p.strides.c + r * p.strides.r + s * p.strides.s] =
        from_compute<Element>(sum);
  }
}

template <typename Element>
void launch(const ReduceSplits& p, cudaStream_t stream) {
  const int64_t total = p.rows * p.taps_h * p.taps_w * p.channels;
  const int64_t blocks = std::min((total + kThreads - 1) / kThreads, kMaxBlocks);
  reduce_splits_kernel<Element><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p);
}

}  // namespace

void reduce_splits(const ReduceSplits& p, cudaStream_t stream) {
  switch (p.dtype) {
    case DType::kFloat32:
      return launch<float>(p, stream);
    case DType::kFloat16:
      return launch<__half>(p, stream);
    case DType::kBFloat16:
      return launch<__nv_bfloat16>(p, stream);
    case DType::kFloat64:
      return;  // partial sums are fp32
  }
}

}  // namespace rnk::cuda
