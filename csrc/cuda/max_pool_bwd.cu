// max_pool_bwd: dx = sum of the dz of the windows whose maximum the element is. Every input pixel
// gathers, in the outputs' memory order. Memory bound.
#include "max_pool_bwd.h"
#include "pool_window.cuh"

namespace rnk::cuda {
namespace {

template <int kWidth>
__device__ inline void load_bytes(int (&values)[kWidth], const uint8_t* p) {
  struct alignas(kWidth) Bytes {
    uint8_t value[kWidth];
  };
  const Bytes bytes = *reinterpret_cast<const Bytes*>(p);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) values[i] = bytes.value[i];
}

template <typename Element, int kWidth>
__global__ void __launch_bounds__(kRowThreads, 4)
    max_pool_bwd_pixels(const MaxPoolBwdParams p, const PoolPlan plan) {
  using T = Compute<Element>;
  for (RowWalk<kWidth> walk(plan.walk); walk.left > 0; walk.next()) {
    const Pixel x(walk.row, plan.rows.in, plan.columns.in);
    const Range rows = plan.rows.outputs_over(x.row);
    const Range columns = plan.columns.outputs_over(x.column);
    T sum[kWidth], dz[kWidth];
    int index[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] = T(0);
    for (int row = rows.begin; row < rows.end; ++row) {
      const int r = plan.rows.tap_of(x.row, row);
      for (int q = columns.begin; q < columns.end && r >= 0; ++q) {
        const int s = plan.columns.tap_of(x.column, q), tap = r * plan.columns.kernel + s;
        if (s < 0) continue;
        const int64_t pixel = (x.image * plan.rows.out + row) * plan.columns.out + q;
        const int64_t at = pixel * plan.width + walk.channel;
        load_vec(dz, static_cast<const Element*>(p.dz) + at);
        load_bytes(index, p.indices + at);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[i] += index[i] == tap ? dz[i] : T(0);
      }
    }
    store_vec(static_cast<Element*>(p.dx) + walk.at, sum);
  }
}

template <typename Element, int kWidth>
void launch_width(const MaxPoolBwdParams& p, cudaStream_t stream) {
  const PoolPlan plan = plan_pool(p.shape, p.shape.h, p.shape.w, kWidth);
  max_pool_bwd_pixels<Element, kWidth><<<plan.walk.grid, plan.walk.block, 0, stream>>>(p, plan);
}

template <typename Element>
void launch(const MaxPoolBwdParams& p, cudaStream_t stream) {
  if (is_wide<Element>(p.shape, p.dz, p.dx) && is_aligned(p.indices, kAccess<Element>)) {
    launch_width<Element, kAccess<Element>>(p, stream);
  } else {
    launch_width<Element, 1>(p, stream);
  }
}

}  // namespace

void max_pool_bwd(const MaxPoolBwdParams& params, cudaStream_t stream) {
  const PoolShape& s = params.shape;
  if (s.n * s.c * s.h * s.w == 0) return;
  with_element(s.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
