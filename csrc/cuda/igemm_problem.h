// Host side of the implicit GEMM, shared by the directions: which problems fit, and the device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>

#include "conv_params.h"
#include "igemm_launch.h"
#include "launch.h"

namespace rnk::cuda {

// What the kernels hold in 32 bits must stay below this, with room for a tile's or chunk's end.
constexpr int64_t kIndexLimit = int64_t{1} << 30;

inline bool fits_index(int64_t value) { return value >= 0 && value < kIndexLimit; }

// Elements of a 16-byte piece: 8 halves or 4 words.
inline int64_t piece_elements(DType dtype) { return dtype == DType::kFloat32 ? 4 : 8; }

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Fewer columns than this in a group leave a tile of 64 mostly empty.
constexpr int64_t kMinGroupColumns = 16;
// Parts of a workspace start at multiples of this.
constexpr int64_t kWorkspaceAlignment = 256;

// Type and sizes that the kernels can take in any direction; false where there is nothing
// to compute.
bool igemm_fits(const ConvShape& shape, DType dtype);

// Whether each group's channels are whole pieces, at pointers that are aligned or null.
bool in_whole_pieces(int64_t channels, int64_t groups, DType dtype,
                     std::initializer_list<const void*> pointers);

// [K, R, S, C / groups] in memory.
bool is_dense_filter(const ConvShape& shape, const FilterStrides& strides);

// The input of a convolution x * w with its prologue.
IgemmInput igemm_input(const ConvShape& shape, const void* x, const Prologue& in);

// The current device has mma.m16n8k16 and cp.async.
bool device_has_igemm();

// fp32 operands that may not be rounded.
inline bool on_float_units(DType dtype, bool tf32) { return dtype == DType::kFloat32 && !tf32; }

// The tile for rows x columns outputs in each of `groups` groups. Gathering, window and fp32
// kernels have one.
IgemmTileKind igemm_tile(IgemmAddressing addressing, bool float_units, int64_t rows,
                         int64_t columns, int64_t groups, int multiprocessors);

// Picks a direction's launcher by operand type; tf32: fp32 operands may be rounded.
template <typename Launcher>
struct IgemmLaunchers {
  Launcher *f16, *bf16, *tf32, *f32;

  Launcher* pick(DType dtype, bool round) const {
    if (dtype == DType::kFloat32) return round ? tf32 : f32;
    return dtype == DType::kFloat16 ? f16 : bf16;
  }
};

}  // namespace rnk::cuda
