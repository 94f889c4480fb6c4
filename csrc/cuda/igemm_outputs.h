// What the implicit-GEMM kernels do with their sums, one struct per kind of output.
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "fast_div.cuh"

namespace rnk::cuda {

// out = act(scale * acc + bias + residual), or acc and statistics of out for each tile of rows.
struct IgemmOutput {
  void* data;  // [rows, pitch]
  const void* residual;
  const float *scale, *bias;  // [groups * columns], or null
  Act act;
  float slope;
  int64_t pitch;
  float* partials;  // [row tiles, 3, pitch], or null
};

// dx = acc + branch at those pixels of an image that are the rows of this launch; with y the
// gradient g = dx * act'(t) of the batch norm in front, t = scale * y + bias, and its sums.
struct IgemmGradient {
  void* data;          // [images, h, w, pitch], as branch and y
  const void* branch;  // or null
  int64_t pitch;
  int h, w, first_h, first_w, step_h, step_w;
  FastDiv by_image, by_width;               // of the rows
  const void* y;                            // or null
  const float *mean, *rstd, *scale, *bias;  // [pitch], with y
  const uint8_t* mask;                      // bits t > 0, or null: t is computed
  Act act;
  float slope;
  float* partials;  // [row tiles, 2, pitch], with y
};

}  // namespace rnk::cuda
