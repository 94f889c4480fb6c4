// Parameters of the convolution kernels. Activations are NHWC in `dtype`, of any alignment: x
// [N, H, W, C], y [N, P, Q, K], and their gradients alike. The filter is [K, C / groups, R, S] in
// `dtype` with any strides. Per-channel vectors are fp32 (fp64 for fp64). Formulas:
// docs/math/convolution.md.
#pragma once

#include "../common/conv_params.h"

namespace rnk::cuda {

// act(scale * x + bias) in front of a convolution; scale null: x itself.
struct Prologue {
  const void* scale;  // [C], or null
  const void* bias;   // [C], with scale
  Act act;
  double slope;
};

// y = act(scale * conv + bias + residual), or y = conv and its statistics.
struct ConvFwd {
  const void* x;
  const void* w;
  FilterStrides w_strides;
  Prologue in;
  const void* scale;     // [K], or null: 1
  const void* bias;      // [K], or null: 0
  const void* residual;  // as y, or null
  Act act;
  double slope;
  void* y;
  void* stats;      // [3, K] as in bn_stats_params.h, or null; then no scale, bias, residual or act
  void* workspace;  // conv_fwd_workspace() bytes, aligned to 256, or null where that is 0
  ConvShape shape;
  DType dtype;
  bool tf32;  // fp32 operands may be rounded to tf32
};

// The batch norm in front of the convolution whose input gradient is wanted: g = dx * act'(t),
// t = scale * y + bias or its sign by mask, and the sums of g and g * (y - mean) * rstd.
struct PreviousBn {
  const void* y;                           // as x
  const void *mean, *rstd, *scale, *bias;  // [C]
  const uint8_t* mask;                     // bits t > 0 of x's elements, or null
  Act act;
  double slope;
  void* sums;  // [2, C], or null: there is no batch norm, dx is wanted
};

// The batch norm behind the convolution: dy = A * g + B * (y - mean) + C is made on the way.
struct NextBn {
  const void *g, *y;  // as dy
  const void* mean;   // [K]
  const void* abc;    // [3, K]
};

// dx = the transposed convolution of dy [+ branch], or g and its sums.
struct ConvDgrad {
  void* dy;     // read, or written with next
  NextBn next;  // or g is null
  const void* w;
  FilterStrides w_strides;
  const void* branch;  // as x, or null
  PreviousBn bn;
  void* dx;         // g with bn
  void* workspace;  // conv_dgrad_workspace() bytes
  ConvShape shape;
  DType dtype;
  bool tf32;
};

// dw = the gradient of the filter where the convolution read in(x).
struct ConvWgrad {
  const void* dy;
  const void* x;
  Prologue in;
  void* dw;
  FilterStrides dw_strides;
  DType dw_dtype;   // of the parameter: dtype, or fp32 where dtype is fp16 or bf16
  void* workspace;  // conv_wgrad_workspace() bytes
  ConvShape shape;
  DType dtype;
  bool tf32;
};

}  // namespace rnk::cuda
