// Parameters of the pooling kernels. x is [N, C, H, W], z [N, C, P, Q]; both channels_last or both
// contiguous in memory.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace rnk {

struct PoolShape {
  int64_t n, c, h, w, p, q;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t padding_h, padding_w;
  int64_t dilation_h, dilation_w;
  bool channels_last;
  DType dtype;
};

// z = max over the window of round(act(scale * x + bias)); the first maximum wins, NaN over all.
struct MaxPoolFwdParams {
  const void* x;      // [N, C, H, W] dtype
  const void* scale;  // [C] fp32 (fp64 for fp64), or null
  const void* bias;   // with scale
  void* z;            // [N, C, P, Q] dtype
  uint8_t* indices;   // [N, C, P, Q]: tap r * kernel_w + s of the maximum
  PoolShape shape;
  Act act;
  double slope;
};

// dx = sum of the dz of the windows whose maximum the element is.
struct MaxPoolBwdParams {
  const void* dz;          // [N, C, P, Q] dtype
  const uint8_t* indices;  // [N, C, P, Q]
  void* dx;                // [N, C, H, W] dtype
  PoolShape shape;
};

// z = mean over the window of round(act(scale * x + bias)).
struct AvgPoolFwdParams {
  const void* x;
  const void* scale;
  const void* bias;
  void* z;
  PoolShape shape;
  bool count_include_pad;
  Act act;
  double slope;
};

struct AvgPoolBwdParams {
  const void* dz;  // [N, C, P, Q] dtype
  void* dx;        // [N, C, H, W] dtype
  PoolShape shape;
  bool count_include_pad;
};

}  // namespace rnk
