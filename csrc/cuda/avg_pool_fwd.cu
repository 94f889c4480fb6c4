// avg_pool_fwd: z = mean over the window of round(act(scale * x + bias)), with torch's divisor.
// Memory bound: a thread has a pixel and 16 bytes of channels (one channel where that does not
// fit). A window is summed row by row, and the rows then: large windows lose less than in one long
// sum.
#include "avg_pool.cuh"
#include "avg_pool_fwd.h"

namespace rnk::cuda {
namespace {

template <typename Element, int kWidth>
__global__ void __launch_bounds__(kRowThreads, 3)
    avg_pool_fwd_pixels(const AvgPoolFwdParams p, const PoolPlan plan) {
  using T = Compute<Element>;
  RowWalk<kWidth> walk(plan.walk);
  if (walk.left == 0) return;
  const bool planes = plan.width == 1;
  PoolReader<Element, kWidth> reader(p, planes ? 0 : walk.channel);
  for (; walk.left > 0; walk.next()) {
    const Pixel z(walk.row, plan.rows.out, plan.columns.out);
    if (planes) reader.load(p, z.image % plan.channels);
    const Range r = plan.rows.taps(z.row), t = plan.columns.taps(z.column);
    T sum[kWidth], line[kWidth], value[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] = T(0);
    for (int j = r.begin; j < r.end; ++j) {
      const int64_t h = plan.rows.start(z.row) + j;
      const int64_t w = plan.columns.start(z.column) + t.begin;
      const int64_t first = (z.image * plan.rows.in + h) * plan.columns.in + w;
      const auto* x = static_cast<const Element*>(p.x) + first * plan.width + walk.channel;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) line[i] = T(0);
      for (int k = t.begin; k < t.end; ++k, x += plan.width) {
        reader.read(value, x);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) line[i] += value[i];
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += line[i];
    }
    const T divisor =
        static_cast<T>(pool_divisor(plan.rows, plan.columns, z.row, z.column, p.count_include_pad));
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] /= divisor;
    store_vec(static_cast<Element*>(p.z) + walk.at, sum);
  }
}

template <typename Element, int kWidth>
void launch_width(const AvgPoolFwdParams& p, cudaStream_t stream) {
  const PoolPlan plan = plan_pool(p.shape, p.shape.p, p.shape.q, kWidth);
  avg_pool_fwd_pixels<Element, kWidth><<<plan.walk.grid, plan.walk.block, 0, stream>>>(p, plan);
}

template <typename Element>
void launch(const AvgPoolFwdParams& p, cudaStream_t stream) {
  if (is_wide<Element>(p.shape, p.x, p.z)) {
    launch_width<Element, kAccess<Element>>(p, stream);
  } else {
    launch_width<Element, 1>(p, stream);
  }
}

}  // namespace

void avg_pool_fwd(const AvgPoolFwdParams& params, cudaStream_t stream) {
  const PoolShape& s = params.shape;
  if (s.n * s.c * s.p * s.q == 0) return;
  with_element(s.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
