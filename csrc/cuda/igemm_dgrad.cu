// igemm_dgrad: rows are pixels of the input, columns its channels, depth is taps times output
// channels. With strides, pixels of one remainder (h % stride_h, w % stride_w) meet the same taps,
// which are a dense convolution of dy: one launch for each remainder, and no product with a zero.
#include <numeric>

#include "igemm_dgrad.h"
#include "igemm_problem.h"
#include "pack_filter.h"
#include "stats_merge.h"

namespace rnk::cuda {
namespace {

// One dimension of a phase: the pixels first, first + stride, ... of the input, and the taps first_
// tap, first_tap + tap_step, ... of the filter that reach them: pixel i meets output
// i + offset - t * step at its t-th tap.
struct PhaseAxis {
  int64_t first, pixels, first_tap, tap_step, taps, offset, step;
};

PhaseAxis phase_axis(int64_t size, int64_t taps, int64_t stride, int64_t padding, int64_t dilation,
                     int64_t remainder) {
  PhaseAxis axis{remainder, (size - remainder + stride - 1) / stride, 0, 1, 0, 0, 0};
  const int64_t common = std::gcd(stride, dilation);
  axis.tap_step = stride / common;
  axis.step = dilation / common;
  for (int64_t tap = 0; tap < std::min(taps, axis.tap_step); ++tap) {
    const int64_t reach = remainder + padding - tap * dilation;
    if (reach % stride != 0) continue;
    axis.first_tap = tap;
    axis.taps = (taps - tap + axis.tap_step - 1) / axis.tap_step;
    axis.offset = reach / stride;
    break;
  }
  return axis;
}

struct Phase {
  PhaseAxis h, w;
  int64_t rows, depth, pitch, row_tiles;
  IgemmChoice choice;
};

bool pieces_of_channels(const ConvDgrad& c) {
  return in_whole_pieces(c.shape.k, c.shape.groups, c.dtype, {c.dy});
}

Phase phase_of(const ConvDgrad& c, int64_t remainder_h, int64_t remainder_w) {
  const ConvShape& s = c.shape;
  Phase phase{};
  phase.h = phase_axis(s.h, s.r, s.stride_h, s.padding_h, s.dilation_h, remainder_h);
  phase.w = phase_axis(s.w, s.s, s.stride_w, s.padding_w, s.dilation_w, remainder_w);
  phase.rows = s.n * phase.h.pixels * phase.w.pixels;
  phase.depth = phase.h.taps * phase.w.taps * (s.k / s.groups);
  phase.pitch = round_up(phase.depth, piece_elements(c.dtype));
  const bool float_units = on_float_units(c.dtype, c.tf32);
  const bool whole = phase.rows == s.n * s.p * s.q && phase.h.pixels == s.p;
  if (!pieces_of_channels(c)) {
    phase.choice.addressing = IgemmAddressing::kGather;
  } else if (!float_units && whole && phase.h.taps == 1 && phase.w.taps == 1 &&
             phase.h.offset == 0 && phase.w.offset == 0) {
    phase.choice.addressing = IgemmAddressing::kPointwise;
  } else {
    phase.choice.addressing = IgemmAddressing::kConvolution;
  }
  if (c.next.g != nullptr && phase.choice.addressing == IgemmAddressing::kPointwise) {
    phase.choice.addressing = IgemmAddressing::kApplied;
  }
  phase.choice.tile = igemm_tile(phase.choice.addressing, float_units, phase.rows, s.c / s.groups,
                                 s.groups, multiprocessors());
  phase.row_tiles = (phase.rows + phase.choice.tile_rows() - 1) / phase.choice.tile_rows();
  return phase;
}

template <typename Visitor>
void each_phase(const ConvDgrad& c, Visitor visit) {
  for (int64_t h = 0; h < std::min(c.shape.stride_h, c.shape.h); ++h) {
    for (int64_t w = 0; w < std::min(c.shape.stride_w, c.shape.w); ++w) visit(phase_of(c, h, w));
  }
}

int64_t element_bytes(const ConvDgrad& c) { return c.dtype == DType::kFloat32 ? 4 : 2; }

// The workspace: each phase's filter, then the partial sums of all row tiles.
struct Workspace {
  int64_t filters = 0, row_tiles = 0, bytes = 0;
};

int64_t filter_bytes(const ConvDgrad& c, const Phase& phase) {
  return round_up(c.shape.c * phase.pitch * element_bytes(c), kWorkspaceAlignment);
}

Workspace workspace_of(const ConvDgrad& c) {
  Workspace space;
  each_phase(c, [&](const Phase& phase) {
    space.filters += filter_bytes(c, phase);
    space.row_tiles += phase.row_tiles;
  });
  space.bytes = space.filters;
  if (c.bn.y != nullptr) {
    const int64_t parts = space.row_tiles + merge_scratch_rows(space.row_tiles);
    space.bytes += parts * 2 * c.shape.c * static_cast<int64_t>(sizeof(float));
  }
  return space;
}

// The phase's taps of the filter, input channels as rows.
void pack(const ConvDgrad& c, const Phase& phase, void* to, cudaStream_t stream) {
  const FilterStrides& w = c.w_strides;
  const int64_t channels = c.shape.c / c.shape.groups, columns = c.shape.k / c.shape.groups;
  const int64_t first = phase.h.first_tap * w.r + phase.w.first_tap * w.s;
  pack_filter(
      {static_cast<const char*>(c.w) + first * element_bytes(c), to, c.shape.groups, channels,
       phase.h.taps, phase.w.taps, columns, phase.pitch, channels * phase.pitch, columns * w.k, w.c,
       w.k, phase.h.tap_step * w.r, phase.w.tap_step * w.s, static_cast<int>(element_bytes(c))},
      stream);
}

Igemm problem_of(const ConvDgrad& c, const Phase& phase, const void* filter) {
  const ConvShape& s = c.shape;
  const int64_t depth_channels = s.k / s.groups, columns = s.c / s.groups;
  Igemm p{};
  p.in.data = c.next.g != nullptr ? c.next.g : c.dy;
  p.apply = {c.next.y, static_cast<const float*>(c.next.mean),
             static_cast<const float*>(c.next.abc), c.dy};
  p.in.image_pitch = s.p * s.q * s.k;
  p.in.pixel_pitch = static_cast<int>(s.k);
  p.in.h = static_cast<int>(s.p), p.in.w = static_cast<int>(s.q);
  p.in.stride_h = p.in.stride_w = 1;
  p.in.padding_h = static_cast<int>(-phase.h.offset);
  p.in.padding_w = static_cast<int>(-phase.w.offset);
  p.in.step_h = static_cast<int>(-phase.h.step), p.in.step_w = static_cast<int>(-phase.w.step);
  p.in.taps_h = static_cast<int>(phase.h.taps), p.in.taps_w = static_cast<int>(phase.w.taps);
  p.in.channels = static_cast<int>(depth_channels);
  p.in.by_channels = FastDiv(static_cast<uint32_t>(depth_channels));
  p.in.by_taps_w = FastDiv(static_cast<uint32_t>(std::max<int64_t>(phase.w.taps, 1)));
  p.filter = {filter, phase.pitch};
  p.rows = static_cast<int>(phase.rows);
  p.columns = static_cast<int>(columns);
  p.depth = static_cast<int>(phase.depth);
  const int tile = phase.choice.tile_columns();
  p.column_tiles = (p.columns + tile - 1) / tile;
  p.by_column_tiles = FastDiv(static_cast<uint32_t>(p.column_tiles));
  p.by_image = FastDiv(static_cast<uint32_t>(phase.h.pixels * phase.w.pixels));
  p.by_width = FastDiv(static_cast<uint32_t>(phase.w.pixels));
  return p;
}

IgemmGradient gradient_of(const ConvDgrad& c, const Phase& phase, const Igemm& p, float* partials) {
  const auto floats = [](const void* v) { return static_cast<const float*>(v); };
  const ConvShape& s = c.shape;
  return {c.dx,
          c.branch,
          s.c,
          static_cast<int>(s.h),
          static_cast<int>(s.w),
          static_cast<int>(phase.h.first),
          static_cast<int>(phase.w.first),
          static_cast<int>(s.stride_h),
          static_cast<int>(s.stride_w),
          p.by_image,
          p.by_width,
          c.bn.y,
          floats(c.bn.mean),
          floats(c.bn.rstd),
          floats(c.bn.scale),
          floats(c.bn.bias),
          c.bn.mask,
          c.bn.act,
          static_cast<float>(c.bn.slope),
          partials};
}

}  // namespace

bool igemm_dgrad_serves(const ConvDgrad& c) {
  return device_has_igemm() && igemm_fits(c.shape, c.dtype) &&
         (pieces_of_channels(c) || fits_index(c.shape.n * c.shape.p * c.shape.q * c.shape.k)) &&
         (c.shape.groups == 1 ||
          (pieces_of_channels(c) && c.shape.c / c.shape.groups >= kMinGroupColumns));
}

// Phases that meet no tap read nothing; the others' rows must be dy's pixels.
bool igemm_dgrad_applies(const ConvDgrad& c) {
  const ConvShape& s = c.shape;
  return !on_float_units(c.dtype, c.tf32) && s.r == 1 && s.s == 1 && s.padding_h == 0 &&
         s.padding_w == 0 &&
         in_whole_pieces(s.k, s.groups, c.dtype,
                         {c.dy, c.next.g, c.next.y, c.next.mean, c.next.abc});
}

int64_t igemm_dgrad_workspace(const ConvDgrad& c) { return workspace_of(c).bytes; }

void igemm_dgrad(const ConvDgrad& c, cudaStream_t stream) {
  const Workspace space = workspace_of(c);
  auto* filter = static_cast<unsigned char*>(c.workspace);
  auto* const partials = reinterpret_cast<float*>(filter + space.filters);
  float* next = partials;
  constexpr IgemmLaunchers<IgemmDgradLauncher> kLaunchers{igemm_dgrad_f16, igemm_dgrad_bf16,
                                                          igemm_dgrad_tf32, igemm_dgrad_f32};
  const auto launch = kLaunchers.pick(c.dtype, c.tf32);
  each_phase(c, [&](const Phase& phase) {
    if (phase.depth > 0) pack(c, phase, filter, stream);
    const Igemm p = problem_of(c, phase, filter);
    launch(p, gradient_of(c, phase, p, next), phase.choice, static_cast<int>(c.shape.groups),
           stream);
    filter += filter_bytes(c, phase);
    next += phase.row_tiles * 2 * c.shape.c;
  });
  if (c.bn.y != nullptr) {
    merge_sums(partials, space.row_tiles, 2, c.shape.c, c.bn.sums, DType::kFloat32, stream);
  }
}

}  // namespace rnk::cuda
