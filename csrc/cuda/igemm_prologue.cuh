// The operand's prologue: act(scale * x + bias) on pieces of a chunk that lie in shared memory. A
// thread transforms the pieces that it copied itself, so its own wait is enough, and the work is
// done once for all warps that read them.
#pragma once

#include "act_vector.cuh"
#include "igemm_params.h"
#include "igemm_tile.cuh"
#include "vec.cuh"

namespace rnk::cuda {

// scale and bias of the channels of one piece.
template <typename Element>
struct PiecePrologue {
  static constexpr int kElements = kPieceBytes / sizeof(Element);
  float scale[kElements], bias[kElements];

  // channel: a multiple of kElements; scale and bias are aligned to 16 bytes.
  __device__ PiecePrologue(const IgemmInput& in, int channel) {
#pragma unroll
    for (int i = 0; i < kElements; i += 4) {
      load(scale + i, in.scale + channel + i);
      load(bias + i, in.bias + channel + i);
    }
  }

  // The piece at `at`; zeros stay where the tap is outside the image.
  __device__ void apply(const IgemmInput& in, void* at, bool valid) const {
    int4 piece = *static_cast<const int4*>(at);
    auto* elements = reinterpret_cast<Element*>(&piece);
    float t[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      t[i] = scale[i] * static_cast<float>(to_compute(elements[i])) + bias[i];
    }
    apply_act_all(t, in.act, in.slope);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      elements[i] = from_compute<Element>(valid ? t[i] : 0.0f);
    }
    *static_cast<int4*>(at) = piece;
  }

 private:
  __device__ static void load(float* to, const float* from) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(from));
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  }
};

// The same on one element.
template <typename Element>
__device__ inline Element gathered_prologue(const IgemmInput& in, Element value, int channel) {
  const float t = in.scale[channel] * static_cast<float>(to_compute(value)) + in.bias[channel];
  return from_compute<Element>(apply_act(t, in.act, in.slope));
}

}  // namespace rnk::cuda
