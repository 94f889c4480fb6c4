// avg_pool_bwd: dx = sum of dz / divisor over the windows the element lies in. Every input pixel
// gathers, in the outputs' memory order. Memory bound.
#include "avg_pool.cuh"
#include "avg_pool_bwd.h"

namespace rnk::cuda {
namespace {

// Blocks on a multiprocessor; the 64 registers that four leave are too few for fp64 on sm_100.
template <typename Element>
constexpr int kAvgPoolBwdBlocks = sizeof(Element) == 8 ? 3 : 4;

template <typename Element, int kWidth>
__global__ void __launch_bounds__(kRowThreads, kAvgPoolBwdBlocks<Element>)
    avg_pool_bwd_pixels(const AvgPoolBwdParams p, const PoolPlan plan) {
  using T = Compute<Element>;
  for (RowWalk<kWidth> walk(plan.walk); walk.left > 0; walk.next()) {
    const Pixel x(walk.row, plan.rows.in, plan.columns.in);
    const Range rows = plan.rows.outputs_over(x.row);
    const Range columns = plan.columns.outputs_over(x.column);
    T sum[kWidth], dz[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] = T(0);
    for (int row = rows.begin; row < rows.end; ++row) {
      for (int q = columns.begin; q < columns.end; ++q) {
        const int64_t pixel = (x.image * plan.rows.out + row) * plan.columns.out + q;
        load_vec(dz, static_cast<const Element*>(p.dz) + pixel * plan.width + walk.channel);
        const T divisor =
            static_cast<T>(pool_divisor(plan.rows, plan.columns, row, q, p.count_include_pad));
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[i] += dz[i] / divisor;
      }
    }
    store_vec(static_cast<Element*>(p.dx) + walk.at, sum);
  }
}

template <typename Element, int kWidth>
void launch_width(const AvgPoolBwdParams& p, cudaStream_t stream) {
  const PoolPlan plan = plan_pool(p.shape, p.shape.h, p.shape.w, kWidth);
  avg_pool_bwd_pixels<Element, kWidth><<<plan.walk.grid, plan.walk.block, 0, stream>>>(p, plan);
}

template <typename Element>
void launch(const AvgPoolBwdParams& p, cudaStream_t stream) {
  if (is_wide<Element>(p.shape, p.dz, p.dx)) {
    launch_width<Element, kAccess<Element>>(p, stream);
  } else {
    launch_width<Element, 1>(p, stream);
  }
}

}  // namespace

void avg_pool_bwd(const AvgPoolBwdParams& params, cudaStream_t stream) {
  const PoolShape& s = params.shape;
  if (s.n * s.c * s.h * s.w == 0) return;
  with_element(s.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
