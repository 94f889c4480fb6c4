// bn_bwd_apply: dy = A * g' + B * (y - mean) + C, g' = g * act'(scale * y + bias) or g. g, y, dy
// [outer, channels, inner] in Element, vectors [channels] fp32 (fp64 for fp64). Memory bound: 2
// reads, 1 write.
#include "act.cuh"
#include "bn_bwd_apply.h"
#include "row_walk.cuh"

namespace rnk::cuda {
namespace {

constexpr int kBlocksPerSm = 4;  // 1024 threads with 4 accesses each in flight
constexpr int kRowsEach = 4;     // rows a thread at least: it reads its coefficients once

template <typename T>
struct Coefficients {
  T mean, a, b, c, scale, bias;

  __device__ void load(const BnBwdApplyParams& p, int64_t channel) {
    const T* abc = static_cast<const T*>(p.abc) + channel;
    mean = static_cast<const T*>(p.mean)[channel];
    a = abc[0];
    b = abc[p.channels];
    c = abc[2 * p.channels];
    if (p.scale != nullptr) {
      scale = static_cast<const T*>(p.scale)[channel];
      bias = static_cast<const T*>(p.bias)[channel];
    }
  }
};

template <typename Element, int kWidth>
__global__ void __launch_bounds__(kRowThreads, 2)
    bn_bwd_apply_rows(const BnBwdApplyParams p, const RowPlan plan) {
  using T = Compute<Element>;
  RowWalk<kWidth> walk(plan);
  if (walk.left == 0) return;
  Coefficients<T> k[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) k[i].load(p, walk.channel + i);
#pragma unroll 2
  for (; walk.left > 0; walk.next()) {
    T g[kWidth], y[kWidth];
    load_vec(g, static_cast<const Element*>(p.g) + walk.at);
    load_vec(y, static_cast<const Element*>(p.y) + walk.at);
    if (p.scale != nullptr) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        g[i] = act_grad(g[i], k[i].scale * y[i] + k[i].bias, p.act, static_cast<T>(p.slope));
      }
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) g[i] = k[i].a * g[i] + (k[i].b * (y[i] - k[i].mean) + k[i].c);
    store_vec(static_cast<Element*>(p.dy) + walk.at, g);
  }
}

template <typename Element, int kWidth>
void launch_width(const BnBwdApplyParams& p, cudaStream_t stream) {
  const int64_t blocks = int64_t{kBlocksPerSm} * multiprocessors();
  const RowPlan plan = plan_rows(p.outer, p.channels, p.inner, kWidth, blocks, kRowsEach);
  bn_bwd_apply_rows<Element, kWidth><<<plan.grid, plan.block, 0, stream>>>(p, plan);
}

template <typename Element>
void launch(const BnBwdApplyParams& p, cudaStream_t stream) {
  const bool wide = p.inner == 1 && p.channels % kAccess<Element> == 0 && is_aligned(p.g) &&
                    is_aligned(p.y) && is_aligned(p.dy);
  if (wide) {
    launch_width<Element, kAccess<Element>>(p, stream);
  } else {
    launch_width<Element, 1>(p, stream);
  }
}

}  // namespace

void bn_bwd_apply(const BnBwdApplyParams& params, cudaStream_t stream) {
  if (params.outer * params.channels * params.inner == 0) return;
  with_element(params.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
