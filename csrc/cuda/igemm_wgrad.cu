// igemm_wgrad: rows are output channels, columns taps times input channels, depth the output's
// pixels, which are split over blocks. Partial sums are added in the order of the splits.
#include <algorithm>

#include "igemm_problem.h"
#include "igemm_wgrad.h"
#include "reduce_splits.h"

namespace rnk::cuda {
namespace {

// Blocks a multiprocessor should get, and the least chunks that repay a block's start and its
// partial sums.
constexpr int64_t kBlocksPerSm = 2, kLeastChunks = 16;
constexpr int64_t kMaxSplits = 1024;

bool input_is_whole(const ConvWgrad& c) {
  const int64_t piece = piece_elements(c.dtype);
  return c.shape.c % piece == 0 && c.shape.c / c.shape.groups % piece == 0 && is_aligned(c.x) &&
         is_aligned(c.in.scale) && is_aligned(c.in.bias);
}

bool rows_are_whole(const ConvWgrad& c) {
  const int64_t piece = piece_elements(c.dtype);
  return c.shape.k % piece == 0 && c.shape.k / c.shape.groups % piece == 0 && is_aligned(c.dy);
}

int64_t chunk_pixels(const ConvWgrad& c) { return c.dtype == DType::kFloat32 ? 16 : 32; }

int64_t rows_of(const ConvShape& s) { return s.k / s.groups; }
int64_t columns_of(const ConvShape& s) { return s.r * s.s * (s.c / s.groups); }

int64_t tiles_of(const ConvShape& s, int64_t rows, int64_t columns) {
  return ceil_div(rows_of(s), rows) * ceil_div(columns_of(s), columns) * s.groups;
}

// How many chunks a block sums, so that all multiprocessors have work.
int64_t split_chunks(const ConvWgrad& c, const IgemmWgradChoice& choice) {
  const ConvShape& s = c.shape;
  const int64_t chunks = ceil_div(s.n * s.p * s.q, chunk_pixels(c));
  const int64_t wanted = ceil_div(kBlocksPerSm * multiprocessors(),
                                  tiles_of(s, choice.tile_rows, choice.tile_columns));
  const int64_t splits =
      std::clamp<int64_t>(std::min(wanted, chunks / kLeastChunks), 1, kMaxSplits);
  return ceil_div(chunks, splits);
}

}  // namespace

bool igemm_wgrad_serves(const ConvWgrad& c) {
  return device_has_igemm() && igemm_fits(c.shape, c.dtype) && c.dw_dtype != DType::kFloat64 &&
         fits_index(c.shape.k * columns_of(c.shape)) &&
         (c.shape.groups == 1 ||
          (input_is_whole(c) && rows_are_whole(c) && rows_of(c.shape) >= kMinGroupColumns));
}

IgemmWgradChoice igemm_wgrad_choice(const ConvWgrad& c) {
  const ConvShape& s = c.shape;
  IgemmWgradChoice choice{};
  choice.rows_are_whole = rows_are_whole(c);
  choice.gathers = !choice.rows_are_whole || !input_is_whole(c);
  if (on_float_units(c.dtype, c.tf32)) {
    choice.tile_rows = 128, choice.tile_columns = 64;
  } else {
    // Large tiles only where they are full: few rows or columns leave half of one empty.
    const bool large = !choice.gathers && rows_of(s) >= 128 && columns_of(s) >= 128;
    choice.tile_rows = choice.tile_columns = large ? 128 : 64;
  }
  const int64_t chunks = ceil_div(s.n * s.p * s.q, chunk_pixels(c));
  choice.splits = static_cast<int>(ceil_div(chunks, split_chunks(c, choice)));
  return choice;
}

int64_t igemm_wgrad_workspace(const ConvWgrad& c) {
  return igemm_wgrad_choice(c).splits * c.shape.k * columns_of(c.shape) *
         static_cast<int64_t>(sizeof(float));
}

void igemm_wgrad(const ConvWgrad& c, cudaStream_t stream) {
  const ConvShape& s = c.shape;
  const IgemmWgradChoice choice = igemm_wgrad_choice(c);
  auto* partials = static_cast<float*>(c.workspace);
  IgemmWgrad p{};
  p.in = igemm_input(s, c.x, c.in);
  p.dy = c.dy;
  p.dy_pitch = s.k;
  p.pixels = static_cast<int>(s.n * s.p * s.q);
  p.rows = static_cast<int>(rows_of(s));
  p.columns = static_cast<int>(columns_of(s));
  p.column_tiles = static_cast<int>(ceil_div(p.columns, choice.tile_columns));
  p.split_chunks = static_cast<int>(split_chunks(c, choice));
  p.by_column_tiles = FastDiv(static_cast<uint32_t>(p.column_tiles));
  p.by_image = FastDiv(static_cast<uint32_t>(s.p * s.q));
  p.by_width = FastDiv(static_cast<uint32_t>(s.q));
  p.partials = partials;
  constexpr IgemmLaunchers<IgemmWgradLauncher> kLaunchers{igemm_wgrad_f16, igemm_wgrad_bf16,
                                                          igemm_wgrad_tf32, igemm_wgrad_f32};
  kLaunchers.pick(c.dtype, c.tf32)(p, choice, static_cast<int>(s.groups), stream);
  reduce_splits(
      {partials, c.dw, c.dw_strides, c.dw_dtype, choice.splits, s.k, s.r, s.s, s.c / s.groups},
      stream);
}

}  // namespace rnk::cuda
