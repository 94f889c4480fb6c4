// The kernels of conv_wgrad_split.cpp for one instruction set.
// clang-format off: each header needs the ones above it.
#include "split_all.h"
#include "conv_wgrad_parts.h"
// clang-format on

RNK_ISA_BEGIN

// Rows (filters) and columns (of the depth R * S * C) of a task, whose operands and sums take 1 MiB
// of a level-2 cache of 2 MiB.
constexpr int64_t kSplitTaskRows = 256;
constexpr int64_t kSplitTaskCols = 256;
// Of a chunk: fewer cost more in partial sums than another thread gains.
constexpr int64_t kSplitChunkPixels = 1024;

// What the next block of pixels will read is fetched meanwhile: of dy, and of x where it is read
// once.
class SplitPixelsAhead {
 public:
  SplitPixelsAhead(const SplitAhead& dy, const SplitAhead& x) : dy_(dy), x_(x) {}
  RNK_INLINE void step() {
    dy_.step();
    x_.step();
  }
  RNK_INLINE void finish() {}

 private:
  SplitAhead dy_, x_;
};

// A are the filters' columns of dy, transposed; B the rows of the gather job.
template <PackIn kIn>
class SplitWgrad {
 public:
  SplitWgrad(const ConvWgradParams& params, const GatherJob& job, const WgradPlan& plan)
      : p_(params),
        job_(job),
        plan_(plan),
        prologue_(params.in, job),
        pieces_(pack_pieces(job, kTileCols, kTileCols)) {}

  void run(ParallelFor parallel_for) const {
    WgradParts<float>(p_, job_, plan_)
        .run(parallel_for, [&](const DwPart& part, int64_t first, int64_t last, float* sums) {
          sum_blocks(part, first, last, sums);
        });
  }

 private:
  void sum_blocks(const DwPart& part, int64_t first, int64_t last, float* sums) const {
    const int64_t most = whole_chunks(blocking().pixels);
    const int64_t elements = kSplitParts * most * (plan_.rows + plan_.cols);
    BFloat16* x = bf16_scratch(Scratch::kInput, elements);
    BFloat16* dy = x + kSplitParts * most * plan_.cols;
    const Bf16Unit unit;
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = plan_.pixels * block / plan_.blocks;
      const int64_t pixels = plan_.pixels * (block + 1) / plan_.blocks - begin;
      const bool special_x = split_x(part, begin, pixels, x);
      const bool special_dy = split_dy(part, begin, pixels, dy);
      const int64_t next = block + 1 < last ? plan_.pixels * (block + 2) / plan_.blocks : 0;
      SplitPixelsAhead ahead = pixels_ahead(part, begin + pixels, next, pixels);
      multiply(part, pixels, dy, x, sums, block > first, special_x || special_dy, ahead);
    }
  }

  SplitPixelsAhead pixels_ahead(const DwPart& part, int64_t begin, int64_t end,
                                int64_t pixels) const {
    const int64_t count = std::max<int64_t>(0, end - begin);
    const int64_t rows = part.row_end - part.row, cols = part.col_end - part.col;
    const int64_t steps = whole_chunks(pixels) / kBf16Chunk * kSplitSteps *
                          ((rows + kSplitRows - 1) / kSplitRows) *
                          ((cols + kTileCols - 1) / kTileCols);
    const bool once = rows_are_pixels(job_);
    const int64_t filters = p_.shape.k, pixel = job_.source_pixel;
    return {SplitAhead(p_.dy + begin * filters + part.row, count, rows, filters, steps),
            SplitAhead(p_.x + begin * pixel + part.col, once ? count : 0, cols, pixel, steps)};
  }

  // A part of the pixels after another, so that a panel of it stays in the level-1 cache for all
  // rows.
  void multiply(const DwPart& part, int64_t pixels, const BFloat16* dy, const BFloat16* x,
                float* sums, bool accumulate, bool special, SplitPixelsAhead& ahead) const {
    const int64_t chunks = whole_chunks(pixels) / kBf16Chunk;
    for (int64_t k = 0; k < pixels; k += kSplitDepthPart) {
      const int64_t depth = std::min(kSplitDepthPart, pixels - k);
      for (int64_t col = 0; col < part.col_end - part.col; col += kTileCols) {
        const BFloat16* b = x + (col / kTileCols * chunks + k / kBf16Chunk) * kSplitChunk;
        for (int64_t row = 0; row < part.row_end - part.row; row += kSplitRows) {
          const BFloat16* a = dy + (row / kSplitRows * chunks + k / kBf16Chunk) * kSplitChunk;
          float* c = sums + row * plan_.cols + col;
          split_tile(kSplitRows, a, b, depth, c, plan_.cols, accumulate || k > 0, special, true,
                     ahead);
        }
      }
    }
  }

  // [column panel][chunk], by way of [pixel][kTileCols]; whether some may be special.
  bool split_x(const DwPart& part, int64_t begin, int64_t pixels, BFloat16* to) const {
    const RowPacker<kTileCols, kIn> packer(job_, prologue_, p_.x, 0);
    float* rows = scratch(Scratch::kSums, pixels * kTileCols);
    bool special = false;
    for (int64_t col = part.col; col < part.col_end; col += kTileCols) {
      if (part.col_end - col < kTileCols) std::fill_n(rows, pixels * kTileCols, 0.0f);
      packer.pack(pieces_, col, std::min(part.col_end, col + kTileCols), begin, begin + pixels,
                  rows, 0);
      ColumnSplit split;
      split.begin(rows, pixels, to);
      split.step(split.left());
      special |= split.special();
      to += whole_chunks(pixels) / kBf16Chunk * kSplitChunk;
    }
    return special;
  }

  // [row tile][chunk], zero in filters and pixels that do not exist; whether some
  // may be special.
  bool split_dy(const DwPart& part, int64_t begin, int64_t pixels, BFloat16* to) const {
    SplitPairs pairs;
    for (int64_t row = part.row; row < part.row_end; row += kSplitRows) {
      const int64_t rows = std::min<int64_t>(kSplitRows, part.row_end - row);
      for (int64_t p = 0; p < pixels; p += kBf16Chunk, to += kSplitChunk) {
        split_transposed(p_.dy + (begin + p) * p_.shape.k + row, p_.shape.k,
                         std::min<int64_t>(kBf16Chunk, pixels - p), rows, pairs, to);
      }
    }
    return pairs.special();
  }

  const ConvWgradParams& p_;
  const GatherJob& job_;
  const WgradPlan& plan_;
  const RunPrologue prologue_;
  const std::vector<PackPiece> pieces_;
};

template <PackIn kIn>
void split_wgrad_run(const ConvWgradParams& p, ParallelFor parallel_for) {
  GatherJob job = gather_fwd(p.shape);
  flatten(job);
  const WgradPlan plan(job, p.shape.k, 1,
                       {kSplitRows, kTileCols, kSplitTaskRows, kSplitTaskCols, blocking().pixels,
                        kSplitChunkPixels});
  SplitWgrad<kIn>(p, job, plan).run(parallel_for);
}

inline void conv_wgrad_split(const ConvWgradParams& p, ParallelFor parallel_for) {
  with_pack_in(p.in, [&](auto in) { split_wgrad_run<decltype(in)::value>(p, parallel_for); });
}

RNK_ISA_END
