// Parameters of the CPU convolution kernels. Activations are NHWC: x [N, H, W, C], y [N, P, Q, K],
// and their gradients alike. The filter is [K, C / groups, R, S] with any strides. Both are of
// Element, fp32 or bf16; vectors of channels, statistics and sums are fp32. Formulas:
// docs/math/convolution.md.
#pragma once

#include "../common/conv_params.h"

namespace rnk {

namespace cpu {
struct BFloat16;
}

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
  kWinograd4,  // F(4x4, 3x3)
  kSplit       // in three bf16 parts (conv_split.h)
};

// y = act(scale * conv + bias + residual), or y = conv and its statistics.
template <typename Element>
struct ConvFwdParamsOf {
  const Element* x;  // [N, H, W, C]
  const Element* w;
  FilterStrides w_strides;
  const float* packed;  // w by conv_fwd_pack, or null; fp32 only
  ConvPrologue in;
  const float* scale;       // [K], or null: 1
  const float* bias;        // [K], or null: 0
  const Element* residual;  // [N, P, Q, K], or null
  Act act;
  float slope;
  Element* y;    // [N, P, Q, K]
  float* stats;  // [3, K] as in bn_stats_params.h, or null; then no scale, bias, residual or act
  ConvShape shape;
  ConvKernel kernel;
  int threads;  // that may run it, or 0: tasks are cut to suit them, and no result depends on it
};
using ConvFwdParams = ConvFwdParamsOf<float>;

// dx = the transposed convolution of dy [+ branch]; with y_prev: g = dx * act'(scale * y_prev +
// bias), or by mask, and the sums of g and g * (y_prev - mean) * rstd.
template <typename Element>
struct ConvDgradParamsOf {
  const Element* dy;  // [N, P, Q, K]
  const Element* w;
  FilterStrides w_strides;
  const Element* branch;                    // [N, H, W, C], or null
  const Element* y_prev;                    // [N, H, W, C], or null
  const float *mean, *rstd, *scale, *bias;  // [C], with y_prev
  const uint8_t* mask;                      // bits of [N, H, W, C], or null
  Act act;
  float slope;
  Element* dx;  // [N, H, W, C]; g with y_prev
  float* sums;  // [2, C], with y_prev
  ConvShape shape;
  ConvKernel kernel;
};
using ConvDgradParams = ConvDgradParamsOf<float>;

// dw = the gradient of the filter where the convolution read in(x).
template <typename Element>
struct ConvWgradParamsOf {
  const Element* dy;  // [N, P, Q, K]
  const Element* x;   // [N, H, W, C]
  ConvPrologue in;
  Element* dw;
  FilterStrides dw_strides;
  ConvShape shape;
};
using ConvWgradParams = ConvWgradParamsOf<float>;

}  // namespace rnk
