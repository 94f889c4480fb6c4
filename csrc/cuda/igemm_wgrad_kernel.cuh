// The filter gradient's implicit-GEMM kernel: a block computes one tile over one range of pixels
// and writes partial sums.
#pragma once

#include "igemm_pipeline.cuh"
#include "igemm_wgrad_math.cuh"
#include "igemm_wgrad_operands.cuh"

namespace rnk::cuda {

// to[0] = first and, where `whole`, to[1] = second; kTogether: always so, and to is aligned to
// both.
template <bool kTogether, typename T>
__device__ inline void store_pair(T* to, bool whole, float first, float second) {
  if constexpr (kTogether) {
    struct alignas(2 * sizeof(T)) Pair {
      T first, second;
    };
    *reinterpret_cast<Pair*>(to) = {from_compute<T>(first), from_compute<T>(second)};
  } else {
    to[0] = from_compute<T>(first);
    if (whole) to[1] = from_compute<T>(second);
  }
}

// Rows: WgradRows. Columns: WgradColumns or WgradColumnGather.
template <class Tile, class Math, class Rows, class Columns>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    igemm_wgrad(const __grid_constant__ IgemmWgrad p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int row_tile = static_cast<int>(p.by_column_tiles.divide(blockIdx.x));
  const int first_row = row_tile * Tile::kM;
  const int first_column = (static_cast<int>(blockIdx.x) - row_tile * p.column_tiles) * Tile::kN;
  const int group = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.z);
  const int first_pixel = split * p.split_chunks * Tile::kPixels;
  const int end = min(first_pixel + p.split_chunks * Tile::kPixels, p.pixels);
  const int chunks = (end - first_pixel + Tile::kPixels - 1) / Tile::kPixels;

  Rows rows(p, group, first_row, first_pixel);
  Columns columns(p, group, first_column, first_pixel);
  const uint32_t base = shared_address(shared);
  Math math(threadIdx.x);
  run_pipeline<Tile::kStages, Tile::kStageBytes>(
      math, chunks, base,
      [&](int stage) {
        const uint32_t at = base + stage * Tile::kStageBytes;
        rows.start(p, at, end);
        columns.start(p, at + Tile::kSecondOffset, end);
      },
      [&](int stage) {
        unsigned char* at = shared + stage * Tile::kStageBytes;
        rows.finish(at);
        columns.template finish<Tile::kStages - 2>(p, at + Tile::kSecondOffset);
      });

  const int64_t plane = (static_cast<int64_t>(split) * gridDim.y + group) * p.rows;
  math.each_pair([&](int row, int column, float first, float second) {
    row += first_row, column += first_column;
    if (row >= p.rows || column >= p.columns) return;
    const int64_t at = (plane + row) * p.columns + column;
    const bool whole = Columns::kEven || column + 1 < p.columns;
    using Operand = typename Tile::Operand;
    if constexpr (sizeof(Operand) == 2) {
      if (p.as_elements) {
        return store_pair<Columns::kEven>(static_cast<Operand*>(p.sums) + at, whole, first, second);
      }
    }
    store_pair<Columns::kEven>(static_cast<float*>(p.sums) + at, whole, first, second);
  });
}

}  // namespace rnk::cuda
