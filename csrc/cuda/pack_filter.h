// A filter rearranged for the implicit GEMM: rows of contiguous depth, each aligned to 16 bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace rnk::cuda {

// to[group * group_pitch + row * pitch + (r * taps_w + s) * inner + i] =
//     from[group * group_stride + row * row_stride + i * inner_stride + r * r_stride + s *
//     s_stride]
// and zeros up to the pitches. Strides and pitches in elements; those of taps may be negative.
struct PackFilter {
  const void* from;
  void* to;
  int64_t groups, rows, taps_h, taps_w, inner, pitch, group_pitch;
  int64_t group_stride, row_stride, inner_stride, r_stride, s_stride;
  int element_bytes;  // 2 or 4
};

void pack_filter(const PackFilter& params, cudaStream_t stream);

}  // namespace rnk::cuda
