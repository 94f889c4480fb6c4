// Which fp32 channels_last convolutions our own kernels run, and which of them.
#pragma once

#include "conv_params.h"

namespace rnk::cpu {

// RNK_CPU_CONV=own: all; torch: none; else those where ours are faster than torch's.
bool conv_serves(const ConvShape& shape);
bool conv_dgrad_serves(const ConvShape& shape);

// Of forward convolutions and gradients of the input that ours run. RNK_CPU_CONV=winograd4x4:
// F(4x4, 3x3), whose error is larger, where F(2x2, 3x3) would run.
ConvKernel conv_kernel(const ConvShape& shape);

}  // namespace rnk::cpu
