// The gradient of the filter by Winograd for one instruction set.
#include "conv_all.h"
// clang-format off: each header needs the ones above it.
#include "winograd_tile.h"
#include "winograd_input.h"
// clang-format on

RNK_ISA_BEGIN

using WgradShape = WinogradShape<2>;
constexpr int kFrequencies = WgradShape::kFrequencies;

// Gradients of the outputs of tiles [first, first + count), transformed like transform_input's.
inline void transform_gradient(const WgradShape& s, const float* dy, int64_t first, int64_t count,
                               const WinogradInputLayout& layout, float* v) {
  const int64_t frequency = layout.frequency_stride(s.columns);
  for (int64_t k = 0; k < s.columns; k += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, s.columns - k));
    float* to = v + k / kChunk * layout.chunk_stride() + k % kChunk;
    TileCursor<2> tile(s, first);
    for (int64_t t = 0; t < count; ++t, tile.next(s)) {
      const float* at = dy + ((tile.image * s.p + tile.row) * s.q + tile.column) * s.columns + k;
      const bool right = tile.column + 1 < s.q, below = tile.row + 1 < s.p;
      const FloatVec zero = {};
      const FloatVec g[2][2] = {
          {load_lanes(at, lanes), right ? load_lanes(at + s.columns, lanes) : zero},
          {below ? load_lanes(at + s.q * s.columns, lanes) : zero,
           right && below ? load_lanes(at + (s.q + 1) * s.columns, lanes) : zero}};
      const Patch<4> d = gradient_transform(g);
      RNK_UNROLL for (int f = 0; f < kFrequencies; ++f) {
        store_vec(to + f * frequency + t * kChunk, d.at[f / 4][f % 4]);
      }
    }
  }
}

// du [K, columns of C] of one frequency = or += the products over `depth` tiles.
// d [chunk of K][tiles][kChunk], v [chunk of C][tiles][kChunk]; k in [first, last) chunks.
inline void filter_products(int64_t channels_k, int64_t channels_c, int64_t depth,
                            const WinogradInputLayout& layout, const float* d, const float* v,
                            int64_t first, int64_t last, float* du, int64_t ldc, bool accumulate) {
  for (int64_t c = 0; c < channels_c; c += kTileCols) {
    const float* b = v + c / kChunk * layout.chunk_stride() + c % kChunk;
    const int vectors = panel_vectors(channels_c, c / kTileCols);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t rows = std::min<int64_t>(kChunk, channels_k - chunk * kChunk);
      const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t row = rows * i / tiles, end = rows * (i + 1) / tiles;
        outer_tile<kChunk, kChunk>(static_cast<int>(end - row),
                                   d + chunk * layout.chunk_stride() + row, b, depth,
                                   du + (chunk * kChunk + row) * ldc + c, ldc, accumulate, vectors);
      }
    }
  }
}

// One gradient of the transformed filter: [frequency][K][ldc].
struct FilterSums {
  int64_t ldc, frequency, floats;
  explicit FilterSums(const WgradShape& s)
      : ldc((s.depth + kTileCols - 1) / kTileCols * kTileCols),
        frequency(s.columns * ldc + kLanes),
        floats(kFrequencies * frequency) {}
};

// dw of output channel k from the sum of `copies` of du, in their order.
inline void store_filter_gradient(const ConvWgradParams& p, const float* du, int64_t copies,
                                  const FilterSums& sums, int64_t k) {
  for (int64_t c = 0; c < p.shape.c; c += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, p.shape.c - c));
    Patch<4> u = {};
    for (int64_t copy = 0; copy < copies; ++copy) {
      const float* at = du + copy * sums.floats + k * sums.ldc + c;
      for (int f = 0; f < kFrequencies; ++f) {
        u.at[f / 4][f % 4] += load_vec(at + f * sums.frequency);
      }
    }
    FloatVec g[3][3];
    filter_gradient(u, g);
    const FilterStrides& s = p.dw_strides;
    for (int i = 0; i < 9; ++i) {
      float* to = p.dw + k * s.k + c * s.c + i / 3 * s.r + i % 3 * s.s;
      scatter_lanes(to, s.c, g[i / 3][i % 3], lanes);
    }
  }
}

// Transformed input and gradient of a step's tiles, and the functions that fill and use them.
struct WgradStep {
  const ConvWgradParams& p;
  const WgradShape& s;
  WinogradInputLayout layout;
  float *v, *d;

  WgradStep(const ConvWgradParams& params, const WgradShape& shape, int64_t tiles)
      : p(params),
        s(shape),
        layout{tiles},
        v(scratch(Scratch::kInput, kFrequencies * layout.frequency_stride(s.depth))),
        d(scratch(Scratch::kOutput, kFrequencies * layout.frequency_stride(s.columns))) {}

  // Tiles [first, first + count) to positions `at` ...
  void transform(int64_t first, int64_t count, int64_t at) const {
    const auto input = p.in.scale ? transform_input<2, true> : transform_input<2, false>;
    input(s, p.in, p.x, first, count, layout, v + at * kChunk);
    transform_gradient(s, p.dy, first, count, layout, d + at * kChunk);
  }

  // du of frequency f and [begin, end) chunks of K = or += the products over `depth` tiles.
  void products(int64_t f, int64_t begin, int64_t end, int64_t depth, const FilterSums& sums,
                float* du, bool accumulate) const {
    filter_products(s.columns, s.depth, depth, layout, d + f * layout.frequency_stride(s.columns),
                    v + f * layout.frequency_stride(s.depth), begin, end, du + f * sums.frequency,
                    sums.ldc, accumulate);
  }
};

// Few channels: every task sums its own tiles, and the sums are added in order.
inline void wgrad_by_tiles(const ConvWgradParams& p, const WgradShape& s,
                           ParallelFor parallel_for) {
  const FilterSums sums(s);
  const WinogradWgradPlan plan = winograd_wgrad_plan(s);
  const int64_t tiles = s.tiles(), chunks = (s.columns + kChunk - 1) / kChunk;
  float* du = scratch(Scratch::kPartial, plan.tasks * sums.floats);
  parallel_tasks(parallel_for, plan.tasks, [&](int64_t task, int64_t last) {
    const WgradStep step(p, s, plan.step);
    for (; task < last; ++task) {
      const int64_t begin = tiles * task / plan.tasks, end = tiles * (task + 1) / plan.tasks;
      for (int64_t first = begin; first < end; first += plan.step) {
        const int64_t count = std::min(plan.step, end - first);
        step.transform(first, count, 0);
        for (int f = 0; f < kFrequencies; ++f) {
          step.products(f, 0, chunks, count, sums, du + task * sums.floats, first > begin);
        }
      }
    }
  });
  parallel(parallel_for, s.columns, 1, [&](int64_t k, int64_t end) {
    for (; k < end; ++k) store_filter_gradient(p, du, plan.tasks, sums, k);
  });
}

// Many channels: all tasks transform a step's tiles, then each sums products of its own.
inline void wgrad_by_channels(const ConvWgradParams& p, const WgradShape& s,
                              ParallelFor parallel_for) {
  const FilterSums sums(s);
  const WinogradWgradPlan plan = winograd_wgrad_plan(s);
  const int64_t tiles = s.tiles(), chunks = (s.columns + kChunk - 1) / kChunk;
  const WgradStep step(p, s, plan.step);
  float* du = scratch(Scratch::kPartial, sums.floats);
  for (int64_t first = 0; first < tiles; first += plan.step) {
    const int64_t count = std::min(plan.step, tiles - first);
    parallel(parallel_for, count, kWinogradTransformTiles, [&](int64_t begin, int64_t end) {
      step.transform(first + begin, end - begin, begin);
    });
    parallel_tasks(parallel_for, kFrequencies * chunks, [&](int64_t task, int64_t end) {
      while (task < end) {
        const int64_t chunk = task % chunks, last = std::min(chunks, chunk + end - task);
        step.products(task / chunks, chunk, last, count, sums, du, first > 0);
        task += last - chunk;
      }
    });
  }
  parallel(parallel_for, s.columns, 1, [&](int64_t k, int64_t end) {
    for (; k < end; ++k) store_filter_gradient(p, du, 1, sums, k);
  });
}

inline void conv_wgrad_winograd(const ConvWgradParams& p, ParallelFor parallel_for) {
  const WgradShape s = forward_shape<2>(p.shape);
  const auto run = winograd_wgrad_plan(s).tasks > 1 ? wgrad_by_tiles : wgrad_by_channels;
  run(p, s, parallel_for);
}

RNK_ISA_END
