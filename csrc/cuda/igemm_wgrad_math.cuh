// What a block does with a chunk of pixels: outer products of their channels, on tensor cores or on
// fp32 units. See igemm_math.cuh.
#pragma once

#include <type_traits>

#include "igemm_wgrad_tile.cuh"
#include "mma.cuh"
#include "shared_load.cuh"

namespace rnk::cuda {

// T: fp16, bf16 or Tf32.
template <typename T, class Tile>
class WgradTensorCores {
 public:
  static constexpr bool kWords = std::is_same_v<T, Tf32>;
  static constexpr int kStepPixels = kWords ? 8 : 16;
  static constexpr int kSteps = Tile::kPixels / kStepPixels;
  static constexpr int kTilesM = Tile::kWarpM / 16, kTilesN = Tile::kWarpN / 8;

  struct Fragments {
    uint32_t a[kTilesM][4], b[kTilesN / 2][4];
  };
  float sums[kTilesM][kTilesN][4] = {};

  __device__ explicit WgradTensorCores(uint32_t thread)
      : lane_(thread % 32),
        warp_m_(thread / 32 / Tile::kWarpsN * Tile::kWarpM),
        warp_n_(thread / 32 % Tile::kWarpsN * Tile::kWarpN) {}

  __device__ void load(Fragments& f, uint32_t stage, uint32_t step) const {
    const uint32_t pixel = step * kStepPixels;
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) load_a(f.a[i], stage, pixel, warp_m_ + i * 16);
#pragma unroll
    for (int j = 0; j < kTilesN / 2; ++j) {
      load_b(f.b[j], stage + Tile::kSecondOffset, pixel, warp_n_ + j * 16);
    }
  }

  __device__ void multiply(Fragments& f) {
    if constexpr (kWords) {
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

  // put(row, column, first, second): two neighbouring sums of the tile.
  template <class Put>
  __device__ void each_pair(Put put) const {
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) {
        const int row = warp_m_ + i * 16 + lane_ / 4, column = warp_n_ + j * 8 + lane_ % 4 * 2;
        put(row, column, sums[i][j][0], sums[i][j][1]);
        put(row + 8, column, sums[i][j][2], sums[i][j][3]);
      }
    }
  }

 private:
  // Matrices (rows 0-7 | 8-15) of pixels 0-7, then of pixels 8-15; of words, 0-3 and 4-7.
  __device__ void load_a(uint32_t (&a)[4], uint32_t stage, uint32_t pixel, uint32_t row) const {
    if constexpr (kWords) {
      a[0] = word(stage, pixel, row);
      a[1] = word(stage, pixel, row + 8);
      a[2] = word(stage, pixel + 4, row);
      a[3] = word(stage, pixel + 4, row + 8);
    } else {
      load_matrices_transposed(a, stage + panel_offset<Tile>(pixel + lane_ / 16 * 8 + lane_ % 8,
                                                             row / 8 + lane_ / 8 % 2));
    }
  }

  // Pixels 0-7 and 8-15 (of words, 0-3 and 4-7) of columns 0-7, then of columns 8-15.
  __device__ void load_b(uint32_t (&b)[4], uint32_t stage, uint32_t pixel, uint32_t column) const {
    if constexpr (kWords) {
      b[0] = word(stage, pixel, column);
      b[1] = word(stage, pixel + 4, column);
      b[2] = word(stage, pixel, column + 8);
      b[3] = word(stage, pixel + 4, column + 8);
    } else {
      load_matrices_transposed(
          b, stage + panel_offset<Tile>(pixel + lane_ % 16, column / 8 + lane_ / 16));
    }
  }

  __device__ uint32_t word(uint32_t stage, uint32_t pixel, uint32_t column) const {
    const uint32_t at = column + lane_ / 4;
    return load_word(stage + panel_offset<Tile>(pixel + lane_ % 4, at / 4) + at % 4 * 4);
  }

  uint32_t lane_, warp_m_, warp_n_;
};

// A thread computes rows 4 * (thread / 8) + {0 .. 3, 64 .. 67} of the tile and columns
// 4 * (thread % 8) + {0 .. 3, 32 .. 35}. For tiles of 128 x 64.
template <class Tile>
class WgradFloatUnits {
 public:
  static constexpr int kSteps = Tile::kPixels;

  struct Fragments {
    float a[2][4], b[2][4];
  };
  float sums[8][8] = {};

  __device__ explicit WgradFloatUnits(uint32_t thread) : row_(thread / 8), column_(thread % 8) {}

  __device__ void load(Fragments& f, uint32_t stage, uint32_t step) const {
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      load_words(f.a[half], stage + panel_offset<Tile>(step, row_ + 16 * half));
      load_words(f.b[half],
                 stage + Tile::kSecondOffset + panel_offset<Tile>(step, column_ + 8 * half));
    }
  }

  __device__ void multiply(const Fragments& f) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        sums[i][j] = fmaf(f.a[i / 4][i % 4], f.b[j / 4][j % 4], sums[i][j]);
      }
    }
  }

  template <class Put>
  __device__ void each_pair(Put put) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        put(row_ * 4 + i % 4 + i / 4 * 64, column_ * 4 + j % 4 + j / 4 * 32, sums[i][j],
            sums[i][j + 1]);
      }
    }
  }

 private:
  static_assert(Tile::kM == 128 && Tile::kN == 64 && Tile::kThreads == 128);
  uint32_t row_, column_;
};

}  // namespace rnk::cuda
