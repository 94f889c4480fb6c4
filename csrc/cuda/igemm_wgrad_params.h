// What the filter gradient's kernels are given: sums[k, j] = sum over pixels m of dy[m, k] *
// in(m, j), column j = (r * S + s) * channels + c, in(m, j) as in igemm_params.h.
#pragma once

#include <cstdint>

#include "igemm_params.h"

namespace rnk::cuda {

struct IgemmWgrad {
  IgemmInput in;
  const void* dy;  // [pixels, dy_pitch]
  int64_t dy_pitch;
  int pixels, rows, columns;  // rows and columns of a group
  int column_tiles;
  int split_chunks;  // chunks of pixels that a block sums
  FastDiv by_column_tiles, by_image, by_width;
  void* sums;        // [splits, groups, rows, columns], fp32
  bool as_elements;  // of one split: rounded to the operands' type
};

}  // namespace rnk::cuda
