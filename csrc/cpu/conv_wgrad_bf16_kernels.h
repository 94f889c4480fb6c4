// The kernels of conv_wgrad_bf16.cpp for one instruction set.
// clang-format off: each header needs the ones above it.
#include "bf16_all.h"
#include "conv_wgrad_parts.h"
// clang-format on

RNK_ISA_BEGIN

// Rows (filters) and columns (of the depth R * S * C) of a task: its sums and its operands, of
// blocking().pixels, take 0.9 MiB of an L2 cache of 1 MiB or more.
constexpr int64_t kBf16TaskRows = 256 / kBf16TileRows * kBf16TileRows;
constexpr int64_t kBf16TaskCols = 512;
// Of a chunk: fewer cost more in partial sums than another thread gains.
constexpr int64_t kBf16ChunkPixels = 2048;

// A are the filters' columns of dy, transposed; B the rows of the gather job, in pairs of pixels.
template <PackIn kIn>
class Bf16Wgrad {
 public:
  Bf16Wgrad(const ConvWgradParamsOf<BFloat16>& params, const GatherJob& job, const WgradPlan& plan)
      : p_(params),
        job_(job),
        plan_(plan),
        prologue_(params.in, job),
        pieces_(pack_pieces(job, kTileCols, kTileCols)) {}

  void run(ParallelFor parallel_for) const {
    WgradParts<BFloat16>(p_, job_, plan_)
        .run(parallel_for, [&](const DwPart& part, int64_t first, int64_t last, float* sums) {
          sum_blocks(part, first, last, sums);
        });
  }

 private:
  void sum_blocks(const DwPart& part, int64_t first, int64_t last, float* sums) const {
    const int64_t most = whole_chunks(blocking().pixels);
    BFloat16* x = bf16_scratch(Scratch::kInput, most * (plan_.rows + plan_.cols + kTileCols));
    BFloat16* dy = x + most * plan_.cols;
    BFloat16* rows = dy + most * plan_.rows;
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = plan_.pixels * block / plan_.blocks;
      const int64_t pixels = plan_.pixels * (block + 1) / plan_.blocks - begin;
      pack_x(part, begin, pixels, rows, x);
      pack_dy(part, begin, pixels, dy);
      multiply(part, pixels, dy, x, sums, block > first);
    }
  }

  void multiply(const DwPart& part, int64_t pixels, const BFloat16* dy, const BFloat16* x,
                float* sums, bool accumulate) const {
    const Bf16Unit unit;
    for (int64_t col = 0; col < part.col_end - part.col; col += kTileCols) {
      const BFloat16* b = x + col * whole_chunks(pixels);
      for (int64_t row = 0; row < part.row_end - part.row; row += kBf16TileRows) {
        const int count =
            static_cast<int>(std::min<int64_t>(kBf16TileRows, part.row_end - part.row - row));
        bf16_tile(count, {dy + row * kBf16Chunk, kBf16Chunk, plan_.rows * kBf16Chunk}, b, pixels,
                  sums + row * plan_.cols + col, plan_.cols, accumulate, kTileVectors);
      }
    }
  }

  // [column panel][pixel / 2][kTileCols][2], by way of [pixel][kTileCols] in `rows`; zero in
  // columns and pixels that do not exist.
  void pack_x(const DwPart& part, int64_t begin, int64_t pixels, BFloat16* rows,
              BFloat16* to) const {
    const RowPacker<kTileCols, kIn, BFloat16> packer(job_, prologue_, p_.x, 0);
    const int64_t padded = whole_chunks(pixels);
    for (int64_t col = part.col; col < part.col_end; col += kTileCols) {
      if (part.col_end - col < kTileCols) std::fill_n(rows, pixels * kTileCols, BFloat16{});
      packer.pack(pieces_, col, std::min(part.col_end, col + kTileCols), begin, begin + pixels,
                  rows, 0);
      for (int64_t p = 0; p < padded; p += 2, to += 2 * kTileCols) {
        const auto row = [&](int64_t pixel) {
          return pixel < pixels ? rows + pixel * kTileCols : nullptr;
        };
        pair_columns(row(p), row(p + 1), kTileCols, to);
      }
    }
  }

  // [pixel chunk][filter][kBf16Chunk]
  void pack_dy(const DwPart& part, int64_t begin, int64_t pixels, BFloat16* to) const {
    const int64_t filters = p_.shape.k;
    const BFloat16* from = p_.dy + begin * filters + part.row;
    for (int64_t p = 0; p < pixels; p += kBf16Chunk, to += plan_.rows * kBf16Chunk) {
      transpose_pixels(from + p * filters, filters, std::min<int64_t>(kBf16Chunk, pixels - p),
                       part.row_end - part.row, to);
    }
  }

  const ConvWgradParamsOf<BFloat16>& p_;
  const GatherJob& job_;
  const WgradPlan& plan_;
  const RunPrologue prologue_;
  const std::vector<PackPiece> pieces_;
};

template <PackIn kIn>
void wgrad_bf16_run(const ConvWgradParamsOf<BFloat16>& p, ParallelFor parallel_for) {
  GatherJob job = gather_fwd(p.shape);
  flatten(job);
  const WgradPlan plan(job, p.shape.k, 1,
                       {kBf16TileRows, kTileCols, kBf16TaskRows, kBf16TaskCols, blocking().pixels,
                        kBf16ChunkPixels});
  Bf16Wgrad<kIn>(p, job, plan).run(parallel_for);
}

inline void conv_wgrad_bf16(const ConvWgradParamsOf<BFloat16>& p, ParallelFor parallel_for) {
  with_pack_in(p.in, [&](auto in) { wgrad_bf16_run<decltype(in)::value>(p, parallel_for); });
}

RNK_ISA_END
