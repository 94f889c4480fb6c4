// bn_act_fwd: z = act(scale * y + bias [+ residual | + scale2 * y2 + bias2]), and optionally the
// bits t > 0. y, residual, z [outer, channels, inner] in Element; scale, bias [channels] fp32 (fp64
// for fp64). A thread takes kVec = 8 neighbours in memory, so one byte of the mask. Memory bound:
// 1-2 reads, 1 write.
#include <algorithm>

#include "act.cuh"
#include "bn_act_fwd.h"
#include "launch.h"
#include "vec.cuh"

namespace rnk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerSm = 8;  // 2048 threads a multiprocessor: full occupancy on sm_80 and sm_90

// The per-channel coefficients of one lane of a thread's vector.
template <typename T>
struct Affine {
  T scale, bias, scale2;

  // Without a second BN the residual enters with factor 1; without a residual scale2 is not used.
  __device__ void load(const BnActFwdParams& p, int64_t channel) {
    scale = static_cast<const T*>(p.scale)[channel];
    bias = static_cast<const T*>(p.bias)[channel];
    scale2 = T(1);
    if (p.scale2 != nullptr) {
      scale2 = static_cast<const T*>(p.scale2)[channel];
      bias += static_cast<const T*>(p.bias2)[channel];
    }
  }
};

// channels_last with channels % 8 == 0: a thread keeps its 8 channels and walks down the rows, so
// the coefficients are read once.
template <typename Element>
__global__ void __launch_bounds__(kThreads) bn_act_fwd_rows(const BnActFwdParams p) {
  using T = Compute<Element>;
  const int64_t groups = p.channels / kVec;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row_step = static_cast<int64_t>(gridDim.x) * kThreads / groups;
  if (thread >= row_step * groups) return;
  const int64_t channel = thread % groups * kVec;

  Affine<T> affine[kVec];
#pragma unroll
  for (int i = 0; i < kVec; ++i) affine[i].load(p, channel + i);

  for (int64_t row = thread / groups; row < p.outer; row += row_step) {
    const int64_t at = row * p.channels + channel;
    T t[kVec], r[kVec];
    load_vec(t, static_cast<const Element*>(p.y) + at);
    if (p.residual != nullptr) load_vec(r, static_cast<const Element*>(p.residual) + at);
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      t[i] = affine[i].scale * t[i] + affine[i].bias;
      if (p.residual != nullptr) t[i] += affine[i].scale2 * r[i];
      bits |= (t[i] > T(0) ? 1u : 0u) << i;
      t[i] = apply_act(t[i], p.act, static_cast<T>(p.slope));
    }
    store_vec(static_cast<Element*>(p.z) + at, t);
    if (p.mask != nullptr) p.mask[at / kVec] = static_cast<uint8_t>(bits);
  }
}

// Any layout, channel count and alignment.
template <typename Element>
__global__ void __launch_bounds__(kThreads) bn_act_fwd_any(const BnActFwdParams p) {
  using T = Compute<Element>;
  const int64_t total = p.outer * p.channels * p.inner;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kVec;
  int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVec;
  for (; first < total; first += step) {
    const int64_t last = first + kVec < total ? first + kVec : total;
    unsigned bits = 0;
    for (int64_t at = first; at < last; ++at) {
      Affine<T> affine;
      affine.load(p, at / p.inner % p.channels);
      T t = affine.scale * to_compute(static_cast<const Element*>(p.y)[at]) + affine.bias;
      if (p.residual != nullptr) {
        t += affine.scale2 * to_compute(static_cast<const Element*>(p.residual)[at]);
      }
      bits |= (t > T(0) ? 1u : 0u) << (at - first);
      t = apply_act(t, p.act, static_cast<T>(p.slope));
      static_cast<Element*>(p.z)[at] = from_compute<Element>(t);
    }
    if (p.mask != nullptr) p.mask[first / kVec] = static_cast<uint8_t>(bits);
  }
}

template <typename Element>
void launch(const BnActFwdParams& p, cudaStream_t stream) {
  const int64_t total = p.outer * p.channels * p.inner;
  const int64_t needed = (total + kThreads * kVec - 1) / (kThreads * kVec);
  int64_t blocks = std::min<int64_t>(needed, int64_t{kBlocksPerSm} * multiprocessors());
  const bool rows = p.inner == 1 && p.channels % kVec == 0 && is_aligned(p.y) && is_aligned(p.z) &&
                    is_aligned(p.residual);
  if (rows) {
    // Every channel group needs a thread.
    blocks = std::max(blocks, (p.channels / kVec + kThreads - 1) / kThreads);
    bn_act_fwd_rows<Element><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p);
  } else {
    bn_act_fwd_any<Element><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p);
  }
}

}  // namespace

void bn_act_fwd(const BnActFwdParams& params, cudaStream_t stream) {
  if (params.outer * params.channels * params.inner == 0) return;
  with_element(params.dtype, [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace rnk::cuda
