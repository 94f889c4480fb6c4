// Which channels_last convolutions our own kernels run, fp32 or bf16, and which of them.
#pragma once

#include "../common/dtype.h"
#include "conv_params.h"

namespace rnk::cpu {

// RNK_CPU_CONV=own: all that they can; torch: none; else those where ours are faster than torch's.
bool conv_fwd_serves(const ConvShape& shape, DType dtype);
bool conv_dgrad_serves(const ConvShape& shape, DType dtype);
bool conv_wgrad_serves(const ConvShape& shape, DType dtype);

// Of forward convolutions and gradients of the input that ours run. RNK_CPU_CONV=winograd4x4:
// F(4x4, 3x3), whose error is larger, where F(2x2, 3x3) would run.
ConvKernel conv_kernel(const ConvShape& shape);

}  // namespace rnk::cpu
