// max_pool_fwd: z = max over the window of round(act(scale * x + bias)), and the tap of the maximum
// as a byte. The first maximum wins, NaN over all, as in torch. Memory bound: a thread has a pixel
// and 16 bytes of channels (one channel where that does not fit).
#include "max_pool_fwd.h"
#include "pool_window.cuh"

namespace rnk::cuda {
namespace {

// kWidth bytes at p, aligned to kWidth.
template <int kWidth>
__device__ inline void store_bytes(uint8_t* p, const int (&values)[kWidth]) {
  struct alignas(kWidth) Bytes {
    uint8_t value[kWidth];
  } bytes;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) bytes.value[i] = static_cast<uint8_t>(values[i]);
  *reinterpret_cast<Bytes*>(p) = bytes;
}

template <typename Element, int kWidth>
__global__ void __launch_bounds__(kRowThreads, 3)
    max_pool_fwd_pixels(const MaxPoolFwdParams p, const PoolPlan plan) {
  using T = Compute<Element>;
  RowWalk<kWidth> walk(plan.walk);
  if (walk.left == 0) return;
  const bool planes = plan.width == 1;
  PoolReader<Element, kWidth> reader(p, planes ? 0 : walk.channel);
  for (; walk.left > 0; walk.next()) {
    const Pixel z(walk.row, plan.rows.out, plan.columns.out);
    if (planes) reader.load(p, z.image % plan.channels);
    const Range r = plan.rows.taps(z.row), t = plan.columns.taps(z.column);
    T best[kWidth], value[kWidth];
    int tap[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      best[i] = T(-INFINITY);
      tap[i] = r.begin * plan.columns.kernel + t.begin;
    }
    for (int j = r.begin; j < r.end; ++j) {
      const int64_t h = plan.rows.start(z.row) + j * plan.rows.dilation;
      const int64_t line = (z.image * plan.rows.in + h) * plan.columns.in;
      for (int k = t.begin; k < t.end; ++k) {
        const int64_t w = plan.columns.start(z.column) + k * plan.columns.dilation;
        const int here = j * plan.columns.kernel + k;
        reader.read(value,
                    static_cast<const Element*>(p.x) + (line + w) * plan.width + walk.channel);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          if (value[i] > best[i] || value[i] != value[i]) {
            best[i] = value[i];
            tap[i] = here;
          }
        }
      }
    }
    store_vec(static_cast<Element*>(p.z) + walk.at, best);
    store_bytes(p.indices + walk.at, tap);
  }
}

template <typename Element, int kWidth>
void launch_width(const MaxPoolFwdParams& p, cudaStream_t stream) {
  const PoolPlan plan = plan_pool(p.shape, p.shape.p, p.shape.q, kWidth);
  max_pool_fwd_pixels<Element, kWidth><<<plan.walk.grid, plan.walk.block, 0, stream>>>(p, plan);
}

template <typename Element>
void launch(const MaxPoolFwdParams& p, cudaStream_t stream) {
  if (is_wide<Element>(p.shape, p.x, p.z) && is_aligned(p.indices)) {
    launch_width<Element, kAccess<Element>>(p, stream);
  } else {
    launch_width<Element, 1>(p, stream);
  }
}

}  // namespace

void max_pool_fwd(const MaxPoolFwdParams& params, cudaStream_t stream) {
  const PoolShape& s = params.shape;
  if (s.n * s.c * s.p * s.q == 0) return;
  with_element(s.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
