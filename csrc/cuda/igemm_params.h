// What the implicit-GEMM kernels are given: out[m, k] = sum over depth d of in(m, d) * filter[k,
// d]. A row m is a pixel (n, i, j) of the output grid, a depth index d = (r * S + s) * channels + c
// a tap of the filter and a channel: in(m, d) = input[n, i * stride_h - padding_h + r * step_h,
// ...].
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "fast_div.cuh"

namespace rnk::cuda {

// The activation [images, h, w, pixel_pitch], of which each group reads `channels` channels.
struct IgemmInput {
  const void* data;
  int64_t image_pitch;  // elements, as all pitches
  int pixel_pitch;
  int h, w;
  int stride_h, stride_w, padding_h, padding_w, step_h, step_w;
  int taps_h, taps_w;
  int channels;
  FastDiv by_channels, by_taps_w;
  const float* scale;  // [groups * channels]: in = act(scale * input + bias); or null
  const float* bias;
  Act act;
  float slope;
};

// Where the input is made on the way (igemm_apply.cuh): data is g.
struct IgemmApply {
  const void* y;      // as data
  const float* mean;  // [pixel_pitch]
  const float* abc;   // [3, pixel_pitch]
  void* dy;           // as data
};

// [groups * columns, pitch], depth contiguous, rows aligned to 16 bytes, zero from depth to pitch.
struct IgemmFilter {
  const void* data;
  int64_t pitch;
};

// The input under a tile in shared memory, where the addressing is kWindow (igemm_window.cuh).
struct IgemmWindow {
  int row_elements;  // taps_w * channels: of a row of the filter, contiguous in the input
  int pitch;         // elements from line to line
  int bytes;         // of all lines
};

struct Igemm {
  IgemmInput in;
  IgemmFilter filter;
  IgemmWindow window;
  IgemmApply apply;
  int rows, columns, depth;  // columns: of a group
  int column_tiles;
  FastDiv by_column_tiles, by_image, by_width;  // the output grid's i * width + j and j
};

}  // namespace rnk::cuda
