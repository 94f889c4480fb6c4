// Input gradients of 1 x 1 convolutions whose dy = A * g + B * (y - mean) + C, a batch norm's, is
// made on the way: chunks of g and y come to shared memory, a thread combines the pieces that it
// copied itself, and the blocks of the first columns store dy for conv_wgrad.
#pragma once

#include "async_copy.cuh"
#include "igemm_params.h"
#include "igemm_prologue.cuh"
#include "igemm_tile.cuh"
#include "vec.cuh"

namespace rnk::cuda {

// Used as the input of igemm. The operand's rows are those of a matrix [rows, pixel_pitch]. A stage
// has g's rows, y's behind them, and last the four vectors of the chunk.
template <class Tile, typename Element>
class IgemmAppliedCopy {
 public:
  static constexpr int kElements = kPieceBytes / sizeof(Element);

  __device__ IgemmAppliedCopy(const Igemm& p, int first_row, int first_channel, uint32_t base)
      : g_(static_cast<const Element*>(p.in.data)),
        first_channel_(first_channel),
        to_(piece_offset(threadIdx.x / kPieces, threadIdx.x % kPieces)),
        k_(threadIdx.x % kPieces * kElements) {
    const int row = first_row + static_cast<int>(threadIdx.x) / kPieces;
    at_ = static_cast<int64_t>(row) * p.in.pixel_pitch + first_channel;
    rows_ = p.rows - row;
    stores_ = p.by_column_tiles.divide(blockIdx.x) * p.column_tiles == blockIdx.x;
    start_vectors(p, base, 0);
  }

  // As IgemmInputCopy::start().
  __device__ void start(const Igemm& p, uint32_t stage, uint32_t next) {
    start_vectors(p, next, (k_ / kChunk + 1) * kChunk);
    const auto* y = static_cast<const Element*>(p.apply.y);
#pragma unroll
    for (int i = 0; i < Tile::kRowsM; ++i) {
      const bool valid = exists(p, i, k_);
      const uint32_t to = stage + to_ + i * Tile::kRowStep * kChunkBytes;
      copy_async_16(to, g_ + address(p, i, k_), valid);
      copy_async_16(to + kY, y + address(p, i, k_), valid);
    }
    k_ += kChunk;
  }

  // Combines this thread's pieces of the chunk that `start` was given kAhead calls ago.
  template <int kAhead>
  __device__ void finish(const Igemm& p, unsigned char* stage) const {
    if (k_ / kChunk == kAhead + 1) __syncthreads();  // the first chunk's vectors are all threads'
    const uint32_t k = k_ - (kAhead + 1) * kChunk;
    float a[kElements], b[kElements], c[kElements], mean[kElements];
    read_vector(a, stage, 0), read_vector(b, stage, 1), read_vector(c, stage, 2);
    read_vector(mean, stage, 3);
    auto* dy = static_cast<Element*>(p.apply.dy);
#pragma unroll
    for (int i = 0; i < Tile::kRowsM; ++i) {
      auto* piece = reinterpret_cast<int4*>(stage + to_ + i * Tile::kRowStep * kChunkBytes);
      if (!exists(p, i, k)) continue;  // zeros stay zeros
      int4 g = *piece;
      const int4 y = piece[kY / kPieceBytes];
      auto* elements = reinterpret_cast<Element*>(&g);
      const auto* other = reinterpret_cast<const Element*>(&y);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const float centred = static_cast<float>(to_compute(other[e])) - mean[e];
        const float t = static_cast<float>(to_compute(elements[e]));
        elements[e] = from_compute<Element>(a[e] * t + (b[e] * centred + c[e]));
      }
      *piece = g;
      if (stores_) *reinterpret_cast<int4*>(dy + address(p, i, k)) = g;
    }
  }

 private:
  using Vectors = ChunkVectors<Element>;
  static constexpr uint32_t kChunk = kPieces * kElements;
  static constexpr uint32_t kY = Tile::kM * kChunkBytes;
  static constexpr uint32_t kVectorBytes = Vectors::kSlots * 16;

  __device__ int64_t address(const Igemm& p, int i, uint32_t k) const {
    return at_ + static_cast<int64_t>(i * Tile::kRowStep) * p.in.pixel_pitch + k;
  }

  __device__ bool exists(const Igemm& p, int i, uint32_t k) const {
    return i * Tile::kRowStep < rows_ && k < static_cast<uint32_t>(p.depth);
  }

  // A, B, C and the mean of the chunk that starts at depth `first`, four floats a thread.
  __device__ void start_vectors(const Igemm& p, uint32_t stage, uint32_t first) const {
    static_assert(4 * Vectors::kSlots <= Tile::kThreads);
    if (threadIdx.x >= 4 * Vectors::kSlots) return;
    const uint32_t slot = threadIdx.x % Vectors::kSlots, vector = threadIdx.x / Vectors::kSlots;
    const uint32_t k = first + slot * 4;
    const float* from = vector == 3 ? p.apply.mean : p.apply.abc + vector * p.in.pixel_pitch;
    copy_async_16(stage + Tile::kVectorOffset + vector * kVectorBytes + Vectors::offset(slot),
                  from + first_channel_ + k, k < static_cast<uint32_t>(p.depth));
  }

  // This thread's piece of a vector.
  __device__ void read_vector(float (&to)[kElements], const unsigned char* stage,
                              int vector) const {
    const unsigned char* from = stage + Tile::kVectorOffset + vector * kVectorBytes;
#pragma unroll
    for (int i = 0; i < kElements; i += 4) {
      const uint32_t slot = threadIdx.x % kPieces * (kElements / 4) + i / 4;
      const auto four = *reinterpret_cast<const float4*>(from + Vectors::offset(slot));
      to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
    }
  }

  const Element* g_;
  int64_t at_;
  int first_channel_, rows_;
  uint32_t to_, k_;
  bool stores_;
};

}  // namespace rnk::cuda
