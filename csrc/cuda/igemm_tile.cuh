// The tiles of the implicit GEMM. A block computes kM x kN outputs and walks down the depth in
// chunks of 128 bytes: 64 halves or 32 words. In shared memory a chunk of an operand is a row of
// eight 16-byte pieces, and piece i of row r lies at i ^ (r % 8): eight rows of one piece, which is
// what ldmatrix reads, and eight pieces of one row, which is what a copy writes, both meet all 32
// banks once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace rnk::cuda {

constexpr int kPieceBytes = 16;
constexpr int kPieces = 8;
constexpr int kChunkBytes = kPieceBytes * kPieces;
// Columns that a staged row of outputs is longer than kN, so that the rows a warp writes at once
// fall into different banks.
constexpr int kStagePad = 8;

// Blocks: how many of them share a multiprocessor's registers. Inputs: how many tensors of which a
// stage has rows beside the filter's.
template <int M, int N, int WarpM, int WarpN, int Stages, int Blocks, int Inputs = 1>
struct IgemmTile {
  static constexpr int kM = M, kN = N;
  static constexpr int kWarpM = WarpM, kWarpN = WarpN;
  static constexpr int kStages = Stages;
  static constexpr int kBlocks = Blocks;
  static constexpr int kWarpsN = N / WarpN;
  static constexpr int kThreads = M / WarpM * kWarpsN * 32;
  // A thread copies one piece of every kRowStep-th row.
  static constexpr int kRowStep = kThreads / kPieces;
  static constexpr int kRowsM = M / kRowStep, kRowsN = N / kRowStep;
  // Behind the operands' rows two vectors of a chunk for each input, at most 64 floats each.
  static constexpr int kFilterOffset = Inputs * M * kChunkBytes;
  static constexpr int kVectorOffset = kFilterOffset + N * kChunkBytes;
  static constexpr int kStageBytes = kVectorOffset + Inputs * 4 * kChunkBytes;
  static constexpr int kStagedPitch = N + kStagePad;
  static constexpr int kStagedBytes = M * kStagedPitch * static_cast<int>(sizeof(float));
  static constexpr int kSharedBytes =
      Stages * kStageBytes > kStagedBytes ? Stages * kStageBytes : kStagedBytes;
};

// Where piece `piece` of row `row` lies in an operand's chunk.
__device__ inline uint32_t piece_offset(uint32_t row, uint32_t piece) {
  return row * kChunkBytes + (piece ^ row % 8) * kPieceBytes;
}

// Where column `column` lies in a staged row: sixteen bytes on for every other 128, so that threads
// which read 32 bytes each do not meet in a bank.
__device__ inline int staged_column(int column) { return column ^ (column >> 5 & 1) << 2; }

}  // namespace rnk::cuda
