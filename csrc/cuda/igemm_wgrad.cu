// igemm_wgrad: rows are output channels, columns taps times input channels, depth the output's
// pixels, which are split over blocks. Partial sums are added in the order of the splits.
#include <algorithm>

#include "igemm_problem.h"
#include "igemm_wgrad.h"
#include "reduce_splits.h"

namespace rnk::cuda {
namespace {

constexpr int64_t kMaxSplits = 1024;

bool input_is_whole(const ConvWgrad& c) {
  return in_whole_pieces(c.shape.c, c.shape.groups, c.dtype, {c.x, c.in.scale, c.in.bias});
}

bool rows_are_whole(const ConvWgrad& c) {
  return in_whole_pieces(c.shape.k, c.shape.groups, c.dtype, {c.dy});
}

int64_t chunk_pixels(const ConvWgrad& c) { return c.dtype == DType::kFloat32 ? 16 : 32; }

int64_t rows_of(const ConvShape& s) { return s.k / s.groups; }
int64_t columns_of(const ConvShape& s) { return s.r * s.s * (s.c / s.groups); }

int64_t tiles_of(const ConvShape& s, int64_t rows, int64_t columns) {
  return ceil_div(rows_of(s), rows) * ceil_div(columns_of(s), columns) * s.groups;
}

// Sets over how many blocks the pixels are split, by a model of the time in units of what a
// multiprocessor takes for a chunk of 128 x 128: rounds of blocks over the multiprocessors, each
// block with its start; the launch that adds partial sums; and their bytes, of which a
// multiprocessor's share of DRAM carries kBytes in that time (13 KB on an A100, 7 KB on an H100, at
// half of their fp16 peak). The first of the best: fewer splits are fewer bytes.
void choose_splits(const ConvWgrad& c, IgemmWgradChoice& choice) {
  constexpr int64_t kStart = 4, kLaunch = 8, kBytes = 7168;
  const ConvShape& s = c.shape;
  const int64_t chunks = ceil_div(s.n * s.p * s.q, chunk_pixels(c));
  const int64_t tiles = tiles_of(s, choice.tile_rows, choice.tile_columns);
  const int64_t count = multiprocessors();
  const double tile = choice.tile_rows * choice.tile_columns / (128.0 * 128.0);
  const double bytes = 2.0 * sizeof(float) * static_cast<double>(s.k * columns_of(s));
  const int64_t most = std::min({chunks, kMaxSplits, 2 * count / tiles + 1});
  double best = 0;
  for (int64_t wanted = 1; wanted <= most; ++wanted) {
    const int64_t each = ceil_div(chunks, wanted), splits = ceil_div(chunks, each);
    double time = static_cast<double>(ceil_div(tiles * splits, count) * (each + kStart)) * tile;
    if (splits > 1) {
      time += kLaunch + static_cast<double>(splits) * bytes / static_cast<double>(count * kBytes);
    }
    if (wanted > 1 && time >= best) continue;
    best = time;
    choice.splits = static_cast<int>(splits), choice.split_chunks = static_cast<int>(each);
  }
}

// A single split's sums are the gradient itself where its rows of depth are dense.
bool writes_gradient(const ConvWgrad& c, const IgemmWgradChoice& choice) {
  return choice.splits == 1 && is_dense_filter(c.shape, c.dw_strides) && is_aligned(c.dw);
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
  choose_splits(c, choice);
  return choice;
}

int64_t igemm_wgrad_workspace(const ConvWgrad& c) {
  const IgemmWgradChoice choice = igemm_wgrad_choice(c);
  if (writes_gradient(c, choice)) return 0;
  return choice.splits * c.shape.k * columns_of(c.shape) * static_cast<int64_t>(sizeof(float));
}

void igemm_wgrad(const ConvWgrad& c, cudaStream_t stream) {
  const ConvShape& s = c.shape;
  const IgemmWgradChoice choice = igemm_wgrad_choice(c);
  const bool direct = writes_gradient(c, choice);
  auto* partials = static_cast<float*>(c.workspace);
  IgemmWgrad p{};
  p.in = igemm_input(s, c.x, c.in);
  p.dy = c.dy;
  p.dy_pitch = s.k;
  p.pixels = static_cast<int>(s.n * s.p * s.q);
  p.rows = static_cast<int>(rows_of(s));
  p.columns = static_cast<int>(columns_of(s));
  p.column_tiles = static_cast<int>(ceil_div(p.columns, choice.tile_columns));
  p.split_chunks = choice.split_chunks;
  p.by_column_tiles = FastDiv(static_cast<uint32_t>(p.column_tiles));
  p.by_image = FastDiv(static_cast<uint32_t>(s.p * s.q));
  p.by_width = FastDiv(static_cast<uint32_t>(s.q));
  p.sums = direct ? c.dw : partials;
  p.as_elements = direct && c.dw_dtype != DType::kFloat32;
  constexpr IgemmLaunchers<IgemmWgradLauncher> kLaunchers{igemm_wgrad_f16, igemm_wgrad_bf16,
                                                          igemm_wgrad_tf32, igemm_wgrad_f32};
  kLaunchers.pick(c.dtype, c.tf32)(p, choice, static_cast<int>(s.groups), stream);
  if (direct) return;
  reduce_splits(
      {partials, c.dw, c.dw_strides, c.dw_dtype, choice.splits, s.k, s.r, s.s, s.c / s.groups},
      stream);
}

}  // namespace rnk::cuda
