// The implicit-GEMM kernel of outputs and input gradients: a block computes one tile.
#pragma once

#include "igemm_math.cuh"
#include "igemm_operands.cuh"
#include "igemm_pipeline.cuh"

namespace rnk::cuda {

// Math: TensorCores or FloatUnits. Input: IgemmInputCopy, IgemmInputGather or IgemmAppliedCopy.
// Output: what becomes of the sums.
template <class Tile, typename Element, class Math, class Input, class Output>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    igemm(const __grid_constant__ Igemm p, const __grid_constant__ typename Output::Params out) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int row_tile = static_cast<int>(p.by_column_tiles.divide(blockIdx.x));
  const int first_row = row_tile * Tile::kM;
  const int first_column = (static_cast<int>(blockIdx.x) - row_tile * p.column_tiles) * Tile::kN;
  const int group = static_cast<int>(blockIdx.y);
  const int columns = p.columns - first_column;
  const int chunks = (p.depth * static_cast<int>(sizeof(Element)) + kChunkBytes - 1) / kChunkBytes;

  const uint32_t base = shared_address(shared);
  Input input(p, first_row, group * p.in.channels, base);
  IgemmFilterCopy<Tile, Element> filter(p, static_cast<int64_t>(group) * p.columns + first_column,
                                        columns);
  Math math(threadIdx.x);
  run_pipeline<Tile::kStages, Tile::kStageBytes>(
      math, chunks, base,
      [&](int stage) {
        const uint32_t at = base + stage * Tile::kStageBytes;
        input.start(p, at, stage + 1 == Tile::kStages ? base : at + Tile::kStageBytes);
        filter.start(p, at);
      },
      [&](int stage) {
        input.template finish<Tile::kStages - 2>(p, shared + stage * Tile::kStageBytes);
      });

  auto* staged = reinterpret_cast<float*>(shared);
  math.store(staged);
  __syncthreads();
  Output output(p, out, first_row, group * p.columns + first_column, min(columns, Tile::kN),
                staged);
  output.write(row_tile);
}

}  // namespace rnk::cuda
