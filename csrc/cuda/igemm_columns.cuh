// Eight columns of a block's outputs, of which a thread takes every kRowStep-th row, so that a row
// is read and written in whole sectors.
#pragma once

#include "igemm_tile.cuh"
#include "launch.h"
#include "vec.cuh"

namespace rnk::cuda {

template <class Tile, typename Element>
struct IgemmColumns {
  static constexpr int kGroups = Tile::kN / kVec;
  static constexpr int kRowStep = Tile::kThreads / kGroups;
  static constexpr int kWarps = Tile::kThreads / 32;

  int column;  // in the tile
  int count;   // that exist, from `column` on; may be negative or more than kVec
  bool vector;
  float* staged;  // [kM, kStagedPitch]

  // columns: of the tile. tensors_are_whole: all rows that will be read or written start at a
  // multiple of 16 bytes.
  __device__ IgemmColumns(int columns, bool tensors_are_whole, float* staged)
      : column(threadIdx.x % kGroups * kVec),
        count(columns - column),
        vector(count >= kVec && tensors_are_whole),
        staged(staged) {}

  __device__ static int first_row() { return threadIdx.x / kGroups; }

  __device__ static float stored(float value) { return to_compute(from_compute<Element>(value)); }

  // The sums of a row of the tile.
  __device__ void read(int row, float (&t)[kVec]) const {
    const float* from = staged + row * Tile::kStagedPitch;
#pragma unroll
    for (int i = 0; i < kVec; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + staged_column(column + i));
      t[i] = four.x, t[i + 1] = four.y, t[i + 2] = four.z, t[i + 3] = four.w;
    }
  }

  // Zeros in columns that do not exist.
  __device__ void load(float (&t)[kVec], const void* base, int64_t at) const {
    const auto* from = static_cast<const Element*>(base) + at;
    if (vector) return load_vec(t, from);
#pragma unroll
    for (int i = 0; i < kVec; ++i) t[i] = i < count ? to_compute(from[i]) : 0.0f;
  }

  __device__ void store(const float (&t)[kVec], void* base, int64_t at) const {
    auto* to = static_cast<Element*>(base) + at;
    if (vector) return store_vec(to, t);
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (i < count) to[i] = from_compute<Element>(t[i]);
    }
  }

  // A vector of the columns; zeros in those that do not exist.
  __device__ void load_vector(float (&t)[kVec], const float* from) const {
    if (count >= kVec && is_aligned(from)) return load_vec(t, from);
#pragma unroll
    for (int i = 0; i < kVec; ++i) t[i] = i < count ? __ldg(from + i) : 0.0f;
  }

  // A sum of the tile's first row: of the column whose totals `reduce` gives this thread.
  __device__ float first() const { return staged[staged_column(threadIdx.x % Tile::kN)]; }

  // The totals of a and b over the block's rows, warps in order. Thread t has those of column t of
  // the tile, so that a warp stores them in whole sectors; false in threads without a column.
  // Overwrites the staged sums: called by all threads after they have read them.
  __device__ bool reduce(float (&a)[kVec], float (&b)[kVec], float& total_a, float& total_b) const {
    static_assert(Tile::kThreads >= Tile::kN);
#pragma unroll
    for (int lanes = kGroups; lanes < 32; lanes *= 2) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        a[i] += __shfl_xor_sync(~0u, a[i], lanes);
        b[i] += __shfl_xor_sync(~0u, b[i], lanes);
      }
    }
    __syncthreads();
    // [kWarps, 2, kN]
    if (threadIdx.x % 32 < kGroups) {
      float* mine = staged + threadIdx.x / 32 * 2 * Tile::kN;
#pragma unroll
      for (int i = 0; i < kVec; i += 4) {
        float* at = mine + staged_column(column + i);
        *reinterpret_cast<float4*>(at) = {a[i], a[i + 1], a[i + 2], a[i + 3]};
        *reinterpret_cast<float4*>(at + Tile::kN) = {b[i], b[i + 1], b[i + 2], b[i + 3]};
      }
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= column + count || threadIdx.x >= Tile::kN) return false;
    const float* mine = staged + staged_column(static_cast<int>(threadIdx.x));
    total_a = total_b = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      total_a += mine[warp * 2 * Tile::kN];
      total_b += mine[(warp * 2 + 1) * Tile::kN];
    }
    return true;
  }
};

}  // namespace rnk::cuda
