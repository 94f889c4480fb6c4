// pack_filter: a thread per element of the result.
#include <algorithm>

#include "pack_filter.h"

namespace rnk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;  // the rest in a grid-stride loop

template <typename Element>
__global__ void __launch_bounds__(kThreads) pack_filter_kernel(const PackFilter p) {
  const int64_t total = p.groups * p.group_pitch;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
#pragma unroll 1
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < total;
       at += step) {
    const int64_t group = at / p.group_pitch, in_group = at % p.group_pitch;
    const int64_t row = in_group / p.pitch, depth = in_group % p.pitch;
    const int64_t i = depth % p.inner, tap = depth / p.inner;
    const int64_t r = tap / p.taps_w, s = tap % p.taps_w;
    Element value = 0;
    if (row < p.rows && r < p.taps_h) {
      value =
          static_cast<const Element*>(p.from)[group * p.group_stride + row * p.row_stride +
                                              i * p.inner_stride + r * p.r_stride + s * p.s_stride];
    }
    static_cast<Element*>(p.to)[at] = value;
  }
}

}  // namespace

void pack_filter(const PackFilter& p, cudaStream_t stream) {
  const int64_t total = p.groups * p.group_pitch;
  const int64_t blocks = std::min((total + kThreads - 1) / kThreads, kMaxBlocks);
  if (p.element_bytes == 2) {
    pack_filter_kernel<uint16_t><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p);
  } else {
    pack_filter_kernel<uint32_t><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p);
  }
}

}  // namespace rnk::cuda
