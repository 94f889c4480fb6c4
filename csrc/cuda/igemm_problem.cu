// Host side of the implicit GEMM: the device and the tile.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "igemm_problem.h"

namespace rnk::cuda {
namespace {

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
}

}  // namespace

bool igemm_fits(const ConvShape& s, DType dtype) {
  constexpr int64_t kMaxTaps = 15;
  if (dtype == DType::kFloat64) return false;
  if (s.n * s.h * s.w * s.c == 0 || s.n * s.p * s.q * s.k == 0 || s.r * s.s == 0) return false;
  const int64_t most_rows = s.n * std::max(s.p * s.q, s.h * s.w);
  const int64_t most_channels = std::max(s.c, s.k);
  const int64_t reach_h = s.p * s.stride_h + s.padding_h + s.r * s.dilation_h;
  const int64_t reach_w = s.q * s.stride_w + s.padding_w + s.s * s.dilation_w;
  return s.r <= kMaxTaps && s.s <= kMaxTaps && s.groups < 65536 && fits_index(most_rows) &&
         fits_index(s.r * s.s * most_channels) &&
         fits_index((most_rows / 64 + 1) * (most_channels / 64 + 1)) && fits_index(reach_h) &&
         fits_index(reach_w) && fits_index(std::max(s.h * s.w * s.c, s.p * s.q * s.k)) &&
         fits_index((s.r * s.dilation_h * std::max(s.w, s.q) + s.s * s.dilation_w) * most_channels);
}

bool in_whole_pieces(int64_t channels, int64_t groups, DType dtype,
                     std::initializer_list<const void*> pointers) {
  const int64_t piece = piece_elements(dtype);
  return channels % piece == 0 && channels / groups % piece == 0 &&
         std::all_of(pointers.begin(), pointers.end(), [](const void* p) { return is_aligned(p); });
}

bool is_dense_filter(const ConvShape& s, const FilterStrides& strides) {
  const int64_t channels = s.c / s.groups;
  const auto dense = [](int64_t size, int64_t stride, int64_t expected) {
    return size == 1 || stride == expected;
  };
  return dense(channels, strides.c, 1) && dense(s.s, strides.s, channels) &&
         dense(s.r, strides.r, channels * s.s) && dense(s.k, strides.k, channels * s.s * s.r);
}

IgemmInput igemm_input(const ConvShape& s, const void* x, const Prologue& in) {
  const int64_t channels = s.c / s.groups;
  const auto i32 = [](int64_t value) { return static_cast<int>(value); };
  return {x,
          s.h * s.w * s.c,
          i32(s.c),
          i32(s.h),
          i32(s.w),
          i32(s.stride_h),
          i32(s.stride_w),
          i32(s.padding_h),
          i32(s.padding_w),
          i32(s.dilation_h),
          i32(s.dilation_w),
          i32(s.r),
          i32(s.s),
          i32(channels),
          FastDiv(static_cast<uint32_t>(channels)),
          FastDiv(static_cast<uint32_t>(s.s)),
          static_cast<const float*>(in.scale),
          static_cast<const float*>(in.bias),
          in.act,
          static_cast<float>(in.slope)};
}

bool device_has_igemm() { return device_attribute(cudaDevAttrComputeCapabilityMajor) >= 8; }

// A model of the time: rounds of blocks over the multiprocessors, times a block's work. Of equal
// ones the larger tile, which loads fewer bytes per output.
IgemmTileKind choose_tile(int64_t rows, int64_t columns, int64_t groups, int multiprocessors) {
  struct Option {
    const char* name;
    IgemmTileKind kind;
    int64_t rows, columns, cost;
  };
  // cost: of an output, in percent. A chunk of the 64 x 64 tile brings 128 rows for 4,096 outputs,
  // half as many outputs a byte as 128 x 128, and its warps load a fragment for 2 to 4 mma instead
  // of 4 to 8: counted as 1.3. 128 x 64 has the large tile's fragments and 3/4 of its outputs a
  // byte.
  constexpr Option kOptions[] = {{"128x128", IgemmTileKind::k128x128, 128, 128, 100},
                                 {"128x64", IgemmTileKind::k128x64, 128, 64, 110},
                                 {"64x64", IgemmTileKind::k64x64, 64, 64, 130}};
  const char* wanted = std::getenv("RNK_CUDA_TILE");
  IgemmTileKind best = IgemmTileKind::k128x128;
  int64_t best_time = INT64_MAX;
  for (const Option& option : kOptions) {
    if (wanted != nullptr && std::strcmp(wanted, option.name) == 0) return option.kind;
    const int64_t blocks = ceil_div(rows, option.rows) * ceil_div(columns, option.columns) * groups;
    const int64_t rounds = ceil_div(blocks, multiprocessors);
    const int64_t time = rounds * option.rows * option.columns * option.cost;
    if (time < best_time) best = option.kind, best_time = time;
  }
  return best;
}

IgemmTileKind igemm_tile(IgemmAddressing addressing, bool float_units, int64_t rows,
                         int64_t columns, int64_t groups, int multiprocessors) {
  if (addressing == IgemmAddressing::kGather || addressing == IgemmAddressing::kWindow) {
    return IgemmTileKind::k64x64;
  }
  if (addressing == IgemmAddressing::kApplied) {
    if (columns <= 64) return IgemmTileKind::k64x64;
    return columns <= 128 ? IgemmTileKind::k64x128 : IgemmTileKind::k64x256;
  }
  if (float_units) return IgemmTileKind::k128x64;
  return choose_tile(rows, columns, groups, multiprocessors);
}

}  // namespace rnk::cuda
