// What a block does with a chunk in shared memory, on tensor cores or on fp32 units. Both keep
// fragments of one step of depth while the next ones load, and leave fp32 sums.
#pragma once

#include "igemm_tile.cuh"
#include "mma.cuh"
#include "shared_load.cuh"

namespace rnk::cuda {

// A warp computes kWarpM x kWarpN outputs by mma of 16 x 8, 32 bytes of depth a step.
template <typename T, class Tile>
class TensorCores {
 public:
  static constexpr int kSteps = kChunkBytes / 32;
  static constexpr int kTilesM = Tile::kWarpM / 16, kTilesN = Tile::kWarpN / 8;

  struct Fragments {
    uint32_t a[kTilesM][4], b[kTilesN / 2][4];
  };
  float sums[kTilesM][kTilesN][4] = {};

  __device__ explicit TensorCores(uint32_t thread) {
    const uint32_t lane = thread % 32, warp = thread / 32;
    warp_m_ = warp / Tile::kWarpsN * Tile::kWarpM;
    warp_n_ = warp % Tile::kWarpsN * Tile::kWarpN;
    a_ = piece_offset(warp_m_ + lane % 16, lane / 16);
    b_ = Tile::kFilterOffset + piece_offset(warp_n_ + lane / 16 * 8 + lane % 8, lane / 8 % 2);
  }

  // Pieces 2 * step and 2 * step + 1 of the chunk at `stage`, which is aligned to 128 bytes: the
  // step's bits are those of the swizzled piece.
  __device__ void load(Fragments& f, uint32_t stage, uint32_t step) const {
    const uint32_t flip = step * 2 * kPieceBytes;
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
      load_matrices(f.a[i], (stage + a_ ^ flip) + i * 16 * kChunkBytes);
    }
    load_filter(f, stage, step);
  }

  __device__ void multiply(Fragments& f) {
    if constexpr (std::is_same_v<T, Tf32>) {
#pragma unroll
      for (auto& matrix : f.a) {
        for (uint32_t& bits : matrix) bits = round_to_tf32(bits);
      }
#pragma unroll
      for (auto& matrix : f.b) {
        for (uint32_t& bits : matrix) bits = round_to_tf32(bits);
      }
    }
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) {
        multiply_add<T>(sums[i][j], f.a[i],
                        *reinterpret_cast<uint32_t (*)[2]>(&f.b[j / 2][j % 2 * 2]));
      }
    }
  }

  // staged [kM][kStagedPitch] = the block's sums.
  __device__ void store(float* staged) const {
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) {
        const int column = staged_column(warp_n_ + j * 8 + lane % 4 * 2);
        float* at = staged + (warp_m_ + i * 16 + lane / 4) * Tile::kStagedPitch + column;
        *reinterpret_cast<float2*>(at) = {sums[i][j][0], sums[i][j][1]};
        *reinterpret_cast<float2*>(at + 8 * Tile::kStagedPitch) = {sums[i][j][2], sums[i][j][3]};
      }
    }
  }

 protected:
  __device__ void load_filter(Fragments& f, uint32_t stage, uint32_t step) const {
#pragma unroll
    for (int j = 0; j < kTilesN / 2; ++j) {
      load_matrices(f.b[j], (stage + b_ ^ step * 2 * kPieceBytes) + j * 16 * kChunkBytes);
    }
  }

  uint32_t warp_m_, warp_n_;

 private:
  uint32_t a_, b_;
};

// A thread computes every 16th row and every 8th column, one piece of depth (4 words) a step. For
// tiles that 128 threads share.
template <class Tile>
class FloatUnits {
 public:
  static constexpr int kSteps = kPieces;
  static constexpr int kRows = Tile::kM / 16, kColumns = Tile::kN / 8;

  struct Fragments {
    float a[kRows][4], b[kColumns][4];
  };
  float sums[kRows][kColumns] = {};

  __device__ explicit FloatUnits(uint32_t thread) : row_(thread / 8), column_(thread % 8) {}

  __device__ void load(Fragments& f, uint32_t stage, uint32_t step) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) load_words(f.a[i], stage + piece_offset(row_ + 16 * i, step));
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      load_words(f.b[j], stage + Tile::kFilterOffset + piece_offset(column_ + 8 * j, step));
    }
  }

  __device__ void multiply(const Fragments& f) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int word = 0; word < 4; ++word) {
          sums[i][j] = fmaf(f.a[i][word], f.b[j][word], sums[i][j]);
        }
      }
    }
  }

  __device__ void store(float* staged) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        staged[(row_ + 16 * i) * Tile::kStagedPitch + staged_column(column_ + 8 * j)] = sums[i][j];
      }
    }
  }

 private:
  static_assert(Tile::kThreads == 128);
  uint32_t row_, column_;
};

}  // namespace rnk::cuda
