// igemm_fwd: rows are output pixels, columns output channels, depth is taps times input channels.
#include <algorithm>

#include "igemm_fwd.h"
#include "igemm_problem.h"
#include "pack_filter.h"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

struct Plan {
  int64_t rows, channels, columns, depth, pitch;
  IgemmChoice choice;
  IgemmWindow window;
  bool packs;  // the filter is not already [K, R, S, C / groups] in whole pieces
  int64_t packed_bytes, row_tiles, partials_bytes;
};

bool pieces_of_channels(const ConvFwd& c) {
  return in_whole_pieces(c.shape.c, c.shape.groups, c.dtype, {c.x, c.in.scale, c.in.bias});
}

bool is_pointwise(const ConvShape& s) {
  return s.r == 1 && s.s == 1 && s.stride_h == 1 && s.stride_w == 1 && s.padding_h == 0 &&
         s.padding_w == 0;
}

int64_t element_bytes(const ConvFwd& c) { return c.dtype == DType::kFloat32 ? 4 : 2; }

// Whether the input under a tile serves as a whole: what a row of the filter meets must be
// contiguous, and the window fit the 99 KiB of sm_86 to sm_120 beside the filter's stages.
bool window_of(const ConvFwd& c, IgemmWindow& window) {
  constexpr int64_t kTileRows = 64, kStages = 24 * 1024, kShared = 99 * 1024;
  const ConvShape& s = c.shape;
  if (s.groups > 1 || (s.dilation_w > 1 && s.s > 1)) return false;
  // A tile that starts at the last pixel of an output row has parts of one more.
  const int64_t output_rows = (kTileRows - 2 + s.q) / s.q + 1;
  const int64_t line = ((std::min(s.q, kTileRows) - 1) * s.stride_w + s.s) * s.c;
  const int64_t piece = piece_elements(c.dtype);
  const int64_t pitch = round_up(line + piece, piece);
  const int64_t bytes = output_rows * s.r * pitch * element_bytes(c);
  if (bytes > kShared - kStages) return false;
  window = {static_cast<int>(s.s * s.c), static_cast<int>(pitch), static_cast<int>(bytes)};
  return true;
}

// window is set where it is used.
IgemmAddressing addressing_of(const ConvFwd& c, IgemmWindow& window) {
  if (!pieces_of_channels(c)) {
    if (on_float_units(c.dtype, c.tf32) || !window_of(c, window)) return IgemmAddressing::kGather;
    return IgemmAddressing::kWindow;
  }
  return is_pointwise(c.shape) && !on_float_units(c.dtype, c.tf32) ? IgemmAddressing::kPointwise
                                                                   : IgemmAddressing::kConvolution;
}

bool filter_is_packed(const ConvFwd& c) {
  return is_dense_filter(c.shape, c.w_strides) && is_aligned(c.w) &&
         c.shape.c / c.shape.groups % piece_elements(c.dtype) == 0;
}

bool uses_window(const Plan& plan) { return plan.choice.addressing == IgemmAddressing::kWindow; }

Plan plan_of(const ConvFwd& c, int multiprocessors) {
  const ConvShape& s = c.shape;
  Plan plan{};
  plan.rows = s.n * s.p * s.q;
  plan.channels = s.c / s.groups;
  plan.columns = s.k / s.groups;
  plan.choice.addressing = addressing_of(c, plan.window);
  const int64_t piece = piece_elements(c.dtype), row_depth = s.s * plan.channels;
  plan.depth = s.r * (uses_window(plan) ? round_up(row_depth, piece) : row_depth);
  plan.packs = !filter_is_packed(c);
  plan.pitch = round_up(plan.depth, plan.packs ? 2 * piece : piece);  // packed: whole sectors
  plan.choice.tile = igemm_tile(plan.choice.addressing, on_float_units(c.dtype, c.tf32), plan.rows,
                                plan.columns, s.groups, multiprocessors);
  if (plan.packs) {
    plan.packed_bytes = round_up(s.k * plan.pitch * element_bytes(c), kWorkspaceAlignment);
  }
  plan.row_tiles = (plan.rows + plan.choice.tile_rows() - 1) / plan.choice.tile_rows();
  if (c.stats != nullptr) {
    const int64_t parts = plan.row_tiles + merge_scratch_rows(plan.row_tiles);
    plan.partials_bytes = parts * 3 * s.k * static_cast<int64_t>(sizeof(float));
  }
  return plan;
}

void pack(const ConvFwd& c, const Plan& plan, void* to, cudaStream_t stream) {
  const ConvShape& s = c.shape;
  const int bytes = static_cast<int>(element_bytes(c));
  if (uses_window(plan)) {
    // Each of the filter's rows on its own, so that each ends in a whole piece.
    pack_filter({c.w, to, s.k, s.r, 1, s.s, plan.channels, plan.depth / s.r, plan.pitch,
                 c.w_strides.k, c.w_strides.r, c.w_strides.c, 0, c.w_strides.s, bytes},
                stream);
    return;
  }
  pack_filter({c.w, to, s.groups, plan.columns, s.r, s.s, plan.channels, plan.pitch,
               plan.columns * plan.pitch, plan.columns * c.w_strides.k, c.w_strides.k,
               c.w_strides.c, c.w_strides.r, c.w_strides.s, bytes},
              stream);
}

}  // namespace

bool igemm_fwd_fits(const ConvFwd& c) {
  return igemm_fits(c.shape, c.dtype) &&
         (pieces_of_channels(c) || fits_index(c.shape.n * c.shape.h * c.shape.w * c.shape.c)) &&
         (c.shape.groups == 1 ||
          (pieces_of_channels(c) && c.shape.k / c.shape.groups >= kMinGroupColumns));
}

bool igemm_fwd_serves(const ConvFwd& c) { return device_has_igemm() && igemm_fwd_fits(c); }

IgemmChoice igemm_fwd_choice(const ConvFwd& c, int multiprocessors) {
  return plan_of(c, multiprocessors).choice;
}

int64_t igemm_fwd_workspace(const ConvFwd& c) {
  const Plan plan = plan_of(c, multiprocessors());
  return plan.packed_bytes + plan.partials_bytes;
}

void igemm_fwd(const ConvFwd& c, cudaStream_t stream) {
  const ConvShape& s = c.shape;
  const Plan plan = plan_of(c, multiprocessors());
  auto* workspace = static_cast<unsigned char*>(c.workspace);
  if (plan.packs) pack(c, plan, workspace, stream);
  auto* partials =
      c.stats != nullptr ? reinterpret_cast<float*>(workspace + plan.packed_bytes) : nullptr;

  Igemm p{};
  p.in = igemm_input(s, c.x, c.in);
  p.filter = {plan.packs ? workspace : c.w, plan.pitch};
  p.window = plan.window;
  const IgemmOutput out{c.y,
                        c.residual,
                        static_cast<const float*>(c.scale),
                        static_cast<const float*>(c.bias),
                        c.act,
                        static_cast<float>(c.slope),
                        s.k,
                        partials};
  p.rows = static_cast<int>(plan.rows);
  p.columns = static_cast<int>(plan.columns);
  p.depth = static_cast<int>(plan.depth);
  const int tile_columns = plan.choice.tile_columns();
  p.column_tiles = (p.columns + tile_columns - 1) / tile_columns;
  p.by_column_tiles = FastDiv(static_cast<uint32_t>(p.column_tiles));
  p.by_image = FastDiv(static_cast<uint32_t>(s.p * s.q));
  p.by_width = FastDiv(static_cast<uint32_t>(s.q));
  constexpr IgemmLaunchers<IgemmFwdLauncher> kLaunchers{igemm_fwd_f16, igemm_fwd_bf16,
                                                        igemm_fwd_tf32, igemm_fwd_f32};
  kLaunchers.pick(c.dtype, c.tf32)(p, out, plan.choice, static_cast<int>(s.groups), stream);
  if (c.stats != nullptr) {
    merge_stats(partials, plan.row_tiles, s.k, c.stats, DType::kFloat32, stream);
  }
}

}  // namespace rnk::cuda
