// Forward and transposed Winograd convolution for one instruction set.
#include "conv_all.h"
// clang-format off: each header needs the ones above it.
#include "winograd_tile.h"
#include "winograd_input.h"
#include "winograd_filter.h"
// clang-format on

RNK_ISA_BEGIN

template <int kOut>
struct WinogradConv {
  WinogradShape<kOut> shape;
  const float* in;
  ConvPrologue prologue;
  FilterView filter;
  EpilogueTensors out;
  const float* packed;  // the filter by pack_winograd, or null
  float* partial;       // [blocks, kPartialRows, columns], or null
  int64_t* counts;      // [blocks] outputs of each, with partial
};

template <int kOut>
int64_t winograd_panel_floats(const WinogradShape<kOut>& s) {
  return s.kFrequencies * s.depth * kTileCols;
}

// All panels of the filter, as [panel][frequency][depth][kTileCols].
template <int kOut>
void pack_winograd(const WinogradShape<kOut>& s, const FilterView& filter, float* u,
                   ParallelFor parallel_for) {
  parallel_tasks(parallel_for, winograd_panels(s, kTileCols), [&](int64_t panel, int64_t end) {
    for (; panel < end; ++panel) {
      pack_winograd_panel<kOut>(filter, s.depth, s.columns, panel,
                                u + panel * winograd_panel_floats(s));
    }
  });
}

// The products of a panel of columns: v [frequency][chunk][tile][kChunk] times
// u [frequency][depth][kTileCols] = m [frequency][tile][kTileCols]. The next frequency's part of u
// is fetched meanwhile, after the last one that of the next panel.
template <int kOut>
void winograd_products(const WinogradShape<kOut>& s, int64_t tiles, int vectors,
                       const WinogradInputLayout& layout, const float* v, const float* u, float* m,
                       int64_t m_stride) {
  // Tiles of about as many rows each.
  const int64_t parts = (tiles + kTileRows - 1) / kTileRows;
  for (int f = 0; f < s.kFrequencies; ++f) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t t = tiles * part / parts;
      const int rows = static_cast<int>(tiles * (part + 1) / parts - t);
      gemm_tile(rows, v + t * kChunk, layout.chunk_stride(), u, s.depth, m + t * kTileCols,
                kTileCols, false, vectors, {u + s.depth * kTileCols + part * s.depth * kLine});
    }
    v += layout.frequency_stride(s.depth);
    u += s.depth * kTileCols;
    m += m_stride;
  }
}

// Hands the outputs of a tile that are in the image to the epilogue.
template <int kOut, typename Epilogue>
RNK_INLINE void put_tile(const WinogradShape<kOut>& s, const TileCursor<kOut>& tile,
                         const FloatVec (&y)[kOut][kOut], Epilogue& epilogue) {
  const int64_t row = (tile.image * s.p + tile.row) * s.q + tile.column;
  if constexpr (kOut == 2) {
    const bool right = tile.column + 1 < s.q, below = tile.row + 1 < s.p;
    epilogue.put(row, y[0][0]);
    if (right) epilogue.put(row + 1, y[0][1]);
    if (below) epilogue.put(row + s.q, y[1][0]);
    if (right && below) epilogue.put(row + s.q + 1, y[1][1]);
  } else {
    // Rolled: sixteen copies of an epilogue would not fit in the cache of instructions.
    const int64_t rows = std::min<int64_t>(kOut, s.p - tile.row);
    const int64_t columns = std::min<int64_t>(kOut, s.q - tile.column);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) epilogue.put(row + i * s.q + j, y[i][j]);
    }
  }
}

// From the products of a panel to its outputs.
template <EpilogueKind kKind, int kOut>
void winograd_outputs(const WinogradConv<kOut>& conv, int64_t first, int64_t tiles, int64_t panel,
                      const float* m, int64_t m_stride, float* partial) {
  const WinogradShape<kOut>& s = conv.shape;
  for (int v = 0; v < kTileVectors; ++v) {
    const int64_t column = panel * kTileCols + v * kLanes;
    if (column >= s.columns) return;
    with_epilogue<kKind>(conv.out, column, s.columns, partial, [&](auto& epilogue) {
      TileCursor<kOut> tile(s, first);
      for (int64_t t = 0; t < tiles; ++t, tile.next(s)) {
        const float* at = m + t * kTileCols + v * kLanes;
        FloatVec y[kOut][kOut];
        output_transform<kOut>(
            [&](int i, int j) { return load_vec(at + (s.kPatch * i + j) * m_stride); }, y);
        put_tile(s, tile, y, epilogue);
      }
    });
  }
}

template <EpilogueKind kKind, int kOut>
void winograd_block(const WinogradConv<kOut>& conv, const WinogradPlan& plan, int64_t block,
                    int64_t first_panel, int64_t last_panel, const float* u) {
  const WinogradShape<kOut>& s = conv.shape;
  const int64_t first = block * plan.block_tiles;
  const int64_t tiles = std::min(plan.block_tiles, s.tiles() - first);
  const WinogradInputLayout layout{plan.block_tiles};
  float* v = scratch(Scratch::kInput, s.kFrequencies * layout.frequency_stride(s.depth));
  // Odd in cache lines too: all frequencies are read at once.
  const int64_t m_stride = plan.block_tiles * kTileCols + kLanes;
  float* m = scratch(Scratch::kOutput, s.kFrequencies * m_stride);
  const auto transform =
      conv.prologue.scale ? transform_input<kOut, true> : transform_input<kOut, false>;
  transform(s, conv.prologue, conv.in, first, tiles, layout, v);
  float* partial = conv.partial ? conv.partial + block * kPartialRows * s.columns : nullptr;
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    winograd_products(s, tiles, panel_vectors(s.columns, panel), layout, v,
                      u + panel * winograd_panel_floats(s), m, m_stride);
    winograd_outputs<kKind>(conv, first, tiles, panel, m, m_stride, partial);
  }
}

// Outputs of a block: its tiles may stand out of the image.
template <int kOut>
int64_t winograd_block_outputs(const WinogradShape<kOut>& s, const WinogradPlan& plan,
                               int64_t block) {
  const int64_t first = block * plan.block_tiles;
  const int64_t tiles = std::min(plan.block_tiles, s.tiles() - first);
  int64_t count = 0;
  TileCursor<kOut> tile(s, first);
  for (int64_t t = 0; t < tiles; ++t, tile.next(s)) {
    count += std::min<int64_t>(kOut, s.p - tile.row) * std::min<int64_t>(kOut, s.q - tile.column);
  }
  return count;
}

template <EpilogueKind kKind, int kOut>
void winograd_run(const WinogradConv<kOut>& conv, const WinogradPlan& plan,
                  ParallelFor parallel_for) {
  const WinogradShape<kOut>& s = conv.shape;
  const float* u = conv.packed;
  if (u == nullptr) {
    float* packed = scratch(Scratch::kFilter, plan.panels * winograd_panel_floats(s));
    pack_winograd(s, conv.filter, packed, parallel_for);
    u = packed;
  }
  const int64_t groups = plan.panel_groups;
  parallel_tasks(parallel_for, plan.blocks * groups, [&](int64_t task, int64_t end) {
    for (; task < end; ++task) {
      const int64_t block = task / groups, group = task % groups;
      if (conv.counts && group == 0) {
        conv.counts[block] = winograd_block_outputs(s, plan, block);
      }
      winograd_block<kKind>(conv, plan, block, plan.panels * group / groups,
                            plan.panels * (group + 1) / groups, u);
    }
  });
}

template <int kOut>
void conv_fwd_winograd(const ConvFwdParams& p, ParallelFor parallel_for) {
  const WinogradShape s = forward_shape<kOut>(p.shape);
  const WinogradPlan plan = winograd_plan(s, kTileRows, kTileCols);
  WinogradConv<kOut> conv{s,  p.x,      p.in,    forward_filter(p.w, p.w_strides),
                          {}, p.packed, nullptr, nullptr};
  conv.out = {p.y,   s.columns, p.residual, p.scale, p.bias,
              p.act, p.slope,   nullptr,    nullptr, nullptr};
  if (p.stats) {
    std::vector<int64_t> counts(plan.blocks);
    conv.partial = scratch(Scratch::kPartial, plan.blocks * kPartialRows * s.columns);
    conv.counts = counts.data();
    winograd_run<EpilogueKind::kStats>(conv, plan, parallel_for);
    return merge_partial_stats(conv.partial, conv.counts, plan.blocks, s.columns, p.stats);
  }
  if (p.scale || p.bias || p.residual || p.act != Act::kIdentity) {
    return winograd_run<EpilogueKind::kAffine>(conv, plan, parallel_for);
  }
  winograd_run<EpilogueKind::kStore>(conv, plan, parallel_for);
}

template <int kOut>
int64_t conv_fwd_winograd_floats(const ConvShape& shape) {
  const WinogradShape s = forward_shape<kOut>(shape);
  return winograd_panels(s, kTileCols) * winograd_panel_floats(s);
}

template <int kOut>
void conv_fwd_winograd_pack(const ConvFwdParams& p, float* packed, ParallelFor parallel_for) {
  pack_winograd(forward_shape<kOut>(p.shape), forward_filter(p.w, p.w_strides), packed,
                parallel_for);
}

template <int kOut>
void conv_dgrad_winograd(const ConvDgradParams& p, ParallelFor parallel_for) {
  const WinogradShape s = transposed_shape<kOut>(p.shape);
  const WinogradPlan plan = winograd_plan(s, kTileRows, kTileCols);
  WinogradConv<kOut> conv{s,  p.dy,    {},      transposed_filter(p.w, p.w_strides),
                          {}, nullptr, nullptr, nullptr};
  if (!p.y_prev) {
    conv.out = {p.dx, s.columns, p.branch, nullptr, nullptr, Act::kIdentity, 0, {}, {}, {}};
    if (p.branch) return winograd_run<EpilogueKind::kAffine>(conv, plan, parallel_for);
    return winograd_run<EpilogueKind::kStore>(conv, plan, parallel_for);
  }
  conv.out = {p.dx, s.columns, p.branch, p.scale, p.bias, p.act, p.slope, p.y_prev, p.mean, p.mask};
  conv.partial = scratch(Scratch::kPartial, plan.blocks * kPartialRows * s.columns);
  winograd_run<EpilogueKind::kBnGrad>(conv, plan, parallel_for);
  merge_partial_sums(conv.partial, plan.blocks, s.columns, p.rstd, p.sums);
}

RNK_ISA_END
