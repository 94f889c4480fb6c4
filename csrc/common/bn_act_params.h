// Parameters of the BN-act kernels. Activations are [outer, channels, inner] (channels_last: inner
// = 1; contiguous: inner = H*W), dense, all in one layout and dtype; per-channel vectors fp32 (fp64
// for fp64).
#pragma once

#include <cstdint>

#include "dtype.h"

namespace rnk {

// z = act(scale * y + bias [+ residual | + scale2 * residual + bias2]); mask bit i = the sum at i >
// 0.
struct BnActFwdParams {
  const void* y;         // [outer, channels, inner] dtype
  const void* scale;     // [channels] fp32
  const void* bias;      // [channels] fp32
  const void* residual;  // [outer, channels, inner] dtype, or null
  const void* scale2;    // [channels] fp32: residual is a second BN's input; or null
  const void* bias2;     // [channels] fp32, with scale2
  void* z;               // [outer, channels, inner] dtype
  uint8_t* mask;         // [ceil(outer * channels * inner / 8)], or null
  int64_t outer;
  int64_t channels;
  int64_t inner;
  DType dtype;
  Act act;
  double slope;
};

}  // namespace rnk
