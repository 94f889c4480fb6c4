// The operand's prologue: act(scale * x + bias) on pieces of a chunk that lie in shared memory. A
// thread transforms the pieces that it copied itself, so its own wait is enough, and the work is
// done once for all warps that read them.
#pragma once

#include "act_vector.cuh"
#include "igemm_params.h"
#include "igemm_tile.cuh"
#include "vec.cuh"

namespace rnk::cuda {

// Scale and bias of a chunk's channels in shared memory, four floats a slot: read once for all of
// the block's threads, which would otherwise meet global memory for every piece.
template <typename Element>
struct ChunkVectors {
  static constexpr int kSlots = kChunkBytes / static_cast<int>(sizeof(Element)) / 4;  // a vector

  // Eight pieces read 32 bytes each: the upper half of the slots changes places pairwise, so that
  // the pieces' first halves do not meet in a bank, nor their second ones.
  __device__ static uint32_t offset(uint32_t slot) { return (slot ^ (slot >> 3 & 1)) * 16; }
};

// scale and bias of the channels of one piece.
template <typename Element>
class PiecePrologue {
 public:
  static constexpr int kElements = kPieceBytes / sizeof(Element);

  // channel: of the piece's first element, a multiple of kElements; scale and bias are aligned to
  // 16 bytes.
  __device__ PiecePrologue(const IgemmInput& in, int channel) : in_(in) {
#pragma unroll
    for (int i = 0; i < kElements; i += 4) {
      unpack(scale_ + i, __ldg(reinterpret_cast<const float4*>(in.scale + channel + i)));
      unpack(bias_ + i, __ldg(reinterpret_cast<const float4*>(in.bias + channel + i)));
    }
  }

  // From the vectors of a chunk that lie at `vectors`.
  __device__ PiecePrologue(const IgemmInput& in, const unsigned char* vectors, uint32_t piece)
      : in_(in) {
    using Vectors = ChunkVectors<Element>;
#pragma unroll
    for (int i = 0; i < kElements; i += 4) {
      const uint32_t at = Vectors::offset(piece * (kElements / 4) + i / 4);
      unpack(scale_ + i, *reinterpret_cast<const float4*>(vectors + at));
      unpack(bias_ + i, *reinterpret_cast<const float4*>(vectors + Vectors::kSlots * 16 + at));
    }
  }

  // channel(i): of element i, or negative where there is none.
  template <class Channel>
  __device__ PiecePrologue(const IgemmInput& in, Channel channel) : in_(in) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const int at = channel(i);
      scale_[i] = at < 0 ? 0.0f : in.scale[at];
      bias_[i] = at < 0 ? 0.0f : in.bias[at];
    }
  }

  // On kCount pieces: piece i lies at at(i), and element e of it is inside the image where bit e of
  // inside(i) is set; zeros stay zeros elsewhere. Smooth functions are long: their loop is not
  // unrolled.
  template <int kCount, class At, class Inside>
  __device__ void apply(At at, Inside inside) const {
    if (in_.act == Act::kGelu || in_.act == Act::kSilu) {
#pragma unroll 1
      for (int i = 0; i < kCount; ++i) {
        apply_to(at(i), inside(i), [&](float (&t)[kElements]) {
          apply_act_all(t, in_.act == Act::kGelu ? Act::kGelu : Act::kSilu, in_.slope);
        });
      }
      return;
    }
    const bool keeps = in_.act == Act::kIdentity, drops = in_.act == Act::kRelu;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      apply_to(at(i), inside(i), [&](float (&t)[kElements]) {
#pragma unroll
        for (float& value : t) {
          const float negative = drops ? 0.0f : value * in_.slope;
          value = value < 0 && !keeps ? negative : value;
        }
      });
    }
  }

 private:
  __device__ static void unpack(float* to, float4 four) {
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  }

  template <class Activate>
  __device__ void apply_to(void* at, uint32_t inside, Activate activate) const {
    int4 piece = *static_cast<const int4*>(at);
    auto* elements = reinterpret_cast<Element*>(&piece);
    float t[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      t[i] = scale_[i] * static_cast<float>(to_compute(elements[i])) + bias_[i];
    }
    activate(t);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      elements[i] = from_compute<Element>(inside >> i & 1 ? t[i] : 0.0f);
    }
    *static_cast<int4*>(at) = piece;
  }

  const IgemmInput& in_;
  float scale_[kElements], bias_[kElements];
};

// All elements of a piece are inside, or none.
__device__ inline uint32_t all_or_none(bool inside) { return inside ? ~0u : 0u; }

}  // namespace rnk::cuda
