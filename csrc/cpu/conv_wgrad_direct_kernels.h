// The kernels of conv_wgrad_direct.cpp for one instruction set.
// clang-format off: each header needs the ones above it.
#include "conv_direct_all.h"
#include "conv_wgrad_parts.h"
#include "conv_wgrad_bands.h"
#include "conv_wgrad_channels.h"
// clang-format on

RNK_ISA_BEGIN

// Rows (filters) and columns (of the depth R * S * C) of a task.
constexpr int64_t kTaskRows = 224 / kTileRows * kTileRows;
constexpr int64_t kTaskCols = 256;
// Of a chunk: fewer cost more in partial sums than another thread gains.
constexpr int64_t kMinChunkPixels = 1024;
// Filters and columns of a task up to which the next block's memory is prefetched. At 64 + 64 a 1x1
// went from 78 to 91 GFLOP/s; at 256 + 64 the cache is too full, and it went from 78 to 74.
constexpr int64_t kPrefetchWidth = 192;

template <PackIn kIn>
class WgradConvolution {
 public:
  WgradConvolution(const ConvWgradParams& params, const GatherJob& job, const WgradPlan& plan)
      : p_(params),
        job_(job),
        plan_(plan),
        prologue_(params.in, job),
        pieces_(pack_pieces(job, kTileCols, kTileCols)),
        filters_(params.shape.k / params.shape.groups) {}

  void run(ParallelFor parallel_for) const {
    WgradParts<float>(p_, job_, plan_)
        .run(parallel_for, [&](const DwPart& part, int64_t first, int64_t last, float* sums) {
          sum_blocks(part, first, last, sums);
        });
  }

 private:
  void sum_blocks(const DwPart& part, int64_t first, int64_t last, float* sums) const {
    const int64_t most = blocking().pixels;
    float* x = scratch(Scratch::kInput, most * (plan_.rows + plan_.cols) + kLanes);
    float* dy = x + most * plan_.cols;
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = plan_.pixels * block / plan_.blocks;
      const int64_t pixels = plan_.pixels * (block + 1) / plan_.blocks - begin;
      pack_x(part, begin, pixels, x);
      pack_dy(part, begin, pixels, dy);
      const int64_t ahead = block + 1 < last ? begin + pixels : plan_.pixels;
      multiply(part, pixels, dy, x, sums, block > first, ahead);
    }
  }

  // ahead: the first pixel of the next block.
  void multiply(const DwPart& part, int64_t pixels, const float* dy, const float* x, float* sums,
                bool accumulate, int64_t ahead) const {
    const int64_t tiles = (part.row_end - part.row + kTileRows - 1) / kTileRows *
                          ((part.col_end - part.col + kTileCols - 1) / kTileCols);
    const int64_t share = (pixels + tiles - 1) / tiles;
    const bool small = part.row_end - part.row + part.col_end - part.col <= kPrefetchWidth;
    for (int64_t col = part.col; col < part.col_end; col += kTileCols, sums += kTileCols) {
      const float* b = x + (col - part.col) * pixels;
      for (int64_t row = part.row; row < part.row_end; row += kTileRows, ahead += share) {
        const int64_t at = row - part.row;
        const int count = static_cast<int>(std::min<int64_t>(kTileRows, part.row_end - row));
        if (small) prefetch(part, ahead, std::min(plan_.pixels, ahead + share));
        outer_tile<kTileRows, kTileCols>(count, dy + at * pixels, b, pixels, sums + at * plan_.cols,
                                         plan_.cols, accumulate);
      }
    }
  }

  // What packing these pixels will read comes while the tiles before are summed: memory that
  // several taps read is not asked for.
  RNK_INLINE void prefetch(const DwPart& part, int64_t pixel, int64_t end) const {
    const bool one_tap = job_.grid_h == 1 && job_.depth() == job_.source_pixel;
    for (; pixel < end; ++pixel) {
      const float* dy = p_.dy + pixel * p_.shape.k + part.group * filters_;
      for (int64_t k = part.row; k < part.row_end; k += kLine) __builtin_prefetch(dy + k);
      if (!one_tap) continue;
      const float* x = p_.x + pixel * job_.source_pixel;
      for (int64_t c = part.col; c < part.col_end; c += kLine) __builtin_prefetch(x + c);
    }
  }

  // [column panel][pixel][kTileCols], zero in columns that do not exist.
  void pack_x(const DwPart& part, int64_t begin, int64_t pixels, float* to) const {
    const int64_t channel = part.group * job_.channels;
    const RowPacker<kTileCols, kIn> packer(job_, prologue_, p_.x + channel, channel);
    const int64_t whole = (part.col_end - part.col) / kTileCols * kTileCols;
    if (part.col + whole < part.col_end) {
      std::fill_n(to + whole * pixels, kTileCols * pixels, 0.0f);
    }
    packer.pack(pieces_, part.col, part.col_end, begin, begin + pixels, to, pixels * kTileCols);
  }

  // [row tile][pixel][kTileRows], pixel by pixel: memory is read in its order. Whole vectors are
  // written, and what is too much of one is written over by the next pixel's.
  void pack_dy(const DwPart& part, int64_t begin, int64_t pixels, float* to) const {
    const int64_t filters = p_.shape.k, rows = part.row_end - part.row;
    const float* from = p_.dy + begin * filters + part.group * filters_ + part.row;
    for (int64_t p = 0; p < pixels; ++p, from += filters, to += kTileRows) {
      for (int64_t row = 0; row < rows; row += kTileRows) {
        const int count = static_cast<int>(std::min<int64_t>(kTileRows, rows - row));
        float* tile = to + row * pixels;
        for (int at = 0; at < count; at += kLanes) {
          const int lanes = std::min<int>(kLanes, count - at);
          const FloatVec v = load_lanes(from + row + at, lanes);
          p + 1 < pixels ? store_vec(tile + at, v) : store_lanes(tile + at, v, lanes);
        }
      }
    }
  }

  const ConvWgradParams& p_;
  const GatherJob& job_;
  const WgradPlan& plan_;
  const RunPrologue prologue_;
  const std::vector<PackPiece> pieces_;
  const int64_t filters_;  // of one group
};

template <PackIn kIn>
void wgrad_run(const ConvWgradParams& p, ParallelFor parallel_for) {
  const int64_t groups = p.shape.groups;
  GatherJob job = gather_fwd(p.shape);
  if (suits_channels(groups, job.channels, p.shape.k / groups)) {
    return WgradChannels<kIn>(p, job).run(parallel_for);
  }
  if (suits_padded(job, groups) && job.depth() > 0) {
    return WgradBands<kIn>(p, job).run(parallel_for);
  }
  flatten(job);
  const WgradPlan plan(
      job, p.shape.k / groups, groups,
      {kTileRows, kTileCols, kTaskRows, kTaskCols, blocking().pixels, kMinChunkPixels});
  WgradConvolution<kIn>(p, job, plan).run(parallel_for);
}

inline void conv_wgrad_direct(const ConvWgradParams& p, ParallelFor parallel_for) {
  with_pack_in(p.in, [&](auto in) { wgrad_run<decltype(in)::value>(p, parallel_for); });
}

RNK_ISA_END
