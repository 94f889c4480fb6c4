// Parameters of the CPU convolution kernels. Activations are NHWC fp32: x [N, H, W, C], y
// [N, P, Q, K], and their gradients alike. The filter is [K, C / groups, R, S] with any strides.
// Formulas: docs/math/convolution.md.
#pragma once

#include "../common/conv_params.h"

namespace rnk {

// act(scale * x + bias) in front of a convolution; scale null: x itself.
struct ConvPrologue {
  const float* scale;  // [C], or null
  const float* bias;   // [C], with scale
  Act act;
  float slope;
};

// Which kernel runs a convolution, chosen once a call (conv_serves.h): a packed filter is of one
// kernel, and the environment, which has a say, may change meanwhile.
enum class ConvKernel : int64_t {
  kDirect,
  kWinograd2,  // F(2x2, 3x3)
  kWinograd4   // F(4x4, 3x3)
};

// y = act(scale * conv + bias + residual), or y = conv and its statistics.
struct ConvFwdParams {
  const float* x;  // [N, H, W, C]
  const float* w;
  FilterStrides w_strides;
  const float* packed;  // w by conv_fwd_pack, or null
  ConvPrologue in;
  const float* scale;     // [K], or null: 1
  const float* bias;      // [K], or null: 0
  const float* residual;  // [N, P, Q, K], or null
  Act act;
  float slope;
  float* y;      // [N, P, Q, K]
  float* stats;  // [3, K] as in bn_stats_params.h, or null; then no scale, bias, residual or act
  ConvShape shape;
  ConvKernel kernel;
  int threads;  // that may run it, or 0: tasks are cut to suit them, and no result depends on it
};

// dx = the transposed convolution of dy [+ branch]; with y_prev: g = dx * act'(scale * y_prev +
// bias), or by mask, and the sums of g and g * (y_prev - mean) * rstd.
struct ConvDgradParams {
  const float* dy;  // [N, P, Q, K]
  const float* w;
  FilterStrides w_strides;
  const float* branch;                      // [N, H, W, C], or null
  const float* y_prev;                      // [N, H, W, C], or null
  const float *mean, *rstd, *scale, *bias;  // [C], with y_prev
  const uint8_t* mask;                      // bits of [N, H, W, C], or null
  Act act;
  float slope;
  float* dx;    // [N, H, W, C]; g with y_prev
  float* sums;  // [2, C], with y_prev
  ConvShape shape;
  ConvKernel kernel;
};

// dw = the gradient of the filter where the convolution read in(x).
struct ConvWgradParams {
  const float* dy;  // [N, P, Q, K]
  const float* x;   // [N, H, W, C]
  ConvPrologue in;
  float* dw;
  FilterStrides dw_strides;
  ConvShape shape;
};

}  // namespace rnk
