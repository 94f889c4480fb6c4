// The tiles of the filter gradient's GEMM. Both operands lie in memory depth first: a row is a
// pixel and its columns are channels. A chunk is a few pixels; in shared memory it is kept as
// panels of 128 bytes of columns, [panel][pixel][8 pieces].
#pragma once

#include "igemm_tile.cuh"

namespace rnk::cuda {

template <typename Element, int M, int N, int WarpM, int WarpN, int Stages, int Blocks>
struct WgradTile {
  using Operand = Element;
  static constexpr int kM = M, kN = N;
  static constexpr int kWarpM = WarpM, kWarpN = WarpN;
  static constexpr int kStages = Stages, kBlocks = Blocks;
  static constexpr int kWarpsN = N / WarpN;
  static constexpr int kThreads = M / WarpM * kWarpsN * 32;
  static constexpr int kElements = kPieceBytes / static_cast<int>(sizeof(Element));
  // Two steps of mma.
  static constexpr int kPixels = 64 / static_cast<int>(sizeof(Element));
  static constexpr int kPanelBytes = kPixels * kChunkBytes;
  static constexpr int kSecondOffset = M / (kElements * kPieces) * kPanelBytes;
  static constexpr int kStageBytes = (M + N) / (kElements * kPieces) * kPanelBytes;
  static constexpr int kSharedBytes = Stages * kStageBytes;
};

// Where piece `piece` of a pixel's columns lies. Eight pixels of one piece, which ldmatrix reads,
// meet all banks once; of words, four pixels of two neighbouring pieces do, which a fragment is.
template <class Tile>
__device__ inline uint32_t panel_offset(uint32_t pixel, uint32_t piece) {
  const uint32_t flip = Tile::kElements == 8 ? pixel % 8 : pixel % 4 * 2;
  return piece / kPieces * Tile::kPanelBytes + pixel * kChunkBytes +
         (piece % kPieces ^ flip) * kPieceBytes;
}

}  // namespace rnk::cuda
