// Parameters of the BN-act backward kernels. Activations are [outer, channels, inner] as in
// bn_act_params.h; vectors [channels] fp32 (fp64 for fp64).
#pragma once

#include <cstdint>

#include "dtype.h"

namespace rnk {

// One batch norm: y, and t = scale * y + bias, xhat = (y - mean) * rstd.
struct BnSide {
  const void* y;  // [outer, channels, inner] dtype
  const void* mean;
  const void* rstd;
  const void* scale;
  const void* bias;
  void* sums;  // [2, channels]: sum of g, sum of g * xhat
};

// g = dz * act'(t), t = the batch norm [+ residual | + the second batch norm], and its sums.
struct BnActBwdReduceParams {
  const void* dz;  // [outer, channels, inner] dtype
  BnSide bn;
  BnSide bn2;            // sums null: there is no second one
  const void* residual;  // [outer, channels, inner] dtype, or null
  const uint8_t* mask;   // bits t > 0 from bn_act_fwd, or null: t is recomputed
  void* g;  // [outer, channels, inner] dtype: g rounded, and so are the sums' g; or null
  int64_t outer;
  int64_t channels;
  int64_t inner;
  DType dtype;
  Act act;
  double slope;
  void* workspace;  // bn_act_bwd_reduce_workspace() bytes, aligned to 16, or null where that is 0
};

// dy = A * g' + B * (y - mean) + C; g' = g * act'(scale * y + bias), or g where scale is null.
struct BnBwdApplyParams {
  const void* g;     // [outer, channels, inner] dtype
  const void* y;     // [outer, channels, inner] dtype
  const void* mean;  // [channels]
  const void* abc;   // [3, channels]
  const void* scale;
  const void* bias;
  void* dy;  // [outer, channels, inner] dtype
  int64_t outer;
  int64_t channels;
  int64_t inner;
  DType dtype;
  Act act;
  double slope;
};

}  // namespace rnk
