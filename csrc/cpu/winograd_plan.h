// How a Winograd convolution is cut into tasks, by its shape and the cache, so that no result
// depends on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cache.h"
#include "conv_params.h"

namespace rnk::cpu {

// A stride-1 convolution with 3x3 taps, forward or transposed: out [N, P, Q, columns] from
// in [N, H, W, depth], in tiles of kOut x kOut outputs.
template <int kOut>
struct WinogradShape {
  static constexpr int kPatch = kOut + 2;  // inputs of a tile, a side
  static constexpr int kFrequencies = kPatch * kPatch;

  int64_t n, h, w, p, q;
  int64_t padding_h, padding_w;
  int64_t depth, columns;

  int64_t tiles_h() const { return (p + kOut - 1) / kOut; }
  int64_t tiles_w() const { return (q + kOut - 1) / kOut; }
  int64_t tiles() const { return n * tiles_h() * tiles_w(); }
};

template <int kOut>
WinogradShape<kOut> forward_shape(const ConvShape& s) {
  return {s.n, s.h, s.w, s.p, s.q, s.padding_h, s.padding_w, s.c, s.k};
}

// dx is the convolution of dy, padded by what the kernel has beyond the forward padding.
template <int kOut>
WinogradShape<kOut> transposed_shape(const ConvShape& s) {
  return {s.n, s.p, s.q, s.h, s.w, 2 - s.padding_h, 2 - s.padding_w, s.k, s.c};
}

// Tasks = blocks of tiles x groups of column panels.
struct WinogradPlan {
  int64_t block_tiles;
  int64_t blocks;
  int64_t panels;  // of `tile_cols` columns
  int64_t panel_groups;
};

// Tiles of a block: with a panel of the filter and its products, their transformed input stays in
// the level-2 cache. Fewer than kWinogradMinTiles would read the filter too often for what they
// multiply.
constexpr int64_t kWinogradMinTiles = 28;
constexpr int64_t kWinogradMaxTiles = 112;
constexpr int64_t kWinogradTasks = 8;  // enough for a few threads also where there is one image

template <int kOut>
int64_t winograd_panels(const WinogradShape<kOut>& shape, int64_t tile_cols) {
  return (shape.columns + tile_cols - 1) / tile_cols;
}

template <int kOut>
WinogradPlan winograd_plan(const WinogradShape<kOut>& shape, int64_t tile_rows, int64_t tile_cols) {
  // Larger tiles are fewer: a block rounded up would leave a last one of two or three, which reads
  // all of the filter as well.
  const int64_t unit = kOut == 2 ? tile_rows : 1;
  const int64_t wanted = blocking().winograd / (shape.kFrequencies * shape.depth);
  const int64_t limit = std::clamp(wanted, kWinogradMinTiles, kWinogradMaxTiles);
  const int64_t rounded = std::max<int64_t>(limit / unit, 1) * unit;
  int64_t blocks = (shape.tiles() + rounded - 1) / rounded;
  // Equal blocks, an even number of them.
  if (blocks > 1) blocks += blocks % 2;
  const int64_t even = (shape.tiles() + blocks - 1) / blocks;
  const int64_t block_tiles = (even + unit - 1) / unit * unit;
  blocks = (shape.tiles() + block_tiles - 1) / block_tiles;
  const int64_t panels = winograd_panels(shape, tile_cols);
  // Every group transforms the block's input anew, which weighs more in larger tiles.
  const int64_t groups = (kWinogradTasks + (kOut == 2 ? blocks - 1 : 0)) / blocks;
  return {block_tiles, blocks, panels, std::clamp<int64_t>(groups, 1, panels)};
}

// The filter's gradient is summed in steps of tiles. Few channels: several tasks, each with sums of
// its own and a step that fits in the level-2 cache. Many: one set of sums, and steps that fit in
// the level-3 cache and visit the sums seldom enough.
struct WinogradWgradPlan {
  int64_t tasks;
  int64_t step;
};

constexpr int64_t kWinogradTransformTiles = 16;  // worth a thread

inline WinogradWgradPlan winograd_wgrad_plan(const WinogradShape<2>& shape) {
  constexpr int64_t kTasks = 8, kSums = 8192, kLarge = int64_t{1} << 20;
  const int64_t tile_floats = shape.kFrequencies * (shape.depth + shape.columns);
  const int64_t tasks = std::min(kTasks, shape.tiles() / kWinogradTransformTiles);
  if (shape.depth * shape.columns <= kSums && tasks > 1) {
    return {tasks, std::clamp<int64_t>(2 * blocking().rows / tile_floats, 32, 256)};
  }
  const int64_t step = std::clamp<int64_t>(kLarge / tile_floats, 128, 1024);
  return {1, std::min(step, shape.tiles())};
}

}  // namespace rnk::cpu
