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
      unpack(scale + i, __ldg(reinterpret_cast<const float4*>(in.scale + channel + i)));
      unpack(bias + i, __ldg(reinterpret_cast<const float4*>(in.bias + channel + i)));
    }
  }

  // From the vectors of a chunk, which ChunkVectors brought to shared memory.
  __device__ PiecePrologue(const void* vectors, uint32_t piece);

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
  __device__ static void unpack(float* to, float4 four) {
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  }
};

// Scale and bias of a chunk's channels in shared memory, four floats a slot: read once for all of
// the block's threads, which would otherwise meet global memory for every piece.
template <typename Element>
struct ChunkVectors {
  static constexpr int kSlots = kChunkBytes / static_cast<int>(sizeof(Element)) / 4;  // a vector

  // Eight pieces read 32 bytes each: the upper half of the slots changes places pairwise, so that
  // the pieces' first halves do not meet in a bank, nor their second ones.
  __device__ static uint32_t offset(uint32_t slot) { return (slot ^ (slot >> 3 & 1)) * 16; }
};

template <typename Element>
__device__ inline PiecePrologue<Element>::PiecePrologue(const void* vectors, uint32_t piece) {
  using Vectors = ChunkVectors<Element>;
  const auto* from = static_cast<const unsigned char*>(vectors);
#pragma unroll
  for (int i = 0; i < kElements; i += 4) {
    const uint32_t at = Vectors::offset(piece * (kElements / 4) + i / 4);
    unpack(scale + i, *reinterpret_cast<const float4*>(from + at));
    unpack(bias + i, *reinterpret_cast<const float4*>(from + Vectors::kSlots * 16 + at));
  }
}

// The same on one element.
template <typename Element>
__device__ inline Element gathered_prologue(const IgemmInput& in, Element value, int channel) {
  const float t = in.scale[channel] * static_cast<float>(to_compute(value)) + in.bias[channel];
  return from_compute<Element>(apply_act(t, in.act, in.slope));
}

}  // namespace rnk::cuda
