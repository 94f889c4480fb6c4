// Which fp32 channels_last convolutions our own kernels run.
#pragma once

#include "../common/conv_params.h"

namespace rnk::cpu {

// RNK_CPU_CONV=own: all; torch: none; else those where ours are faster than torch's.
bool conv_serves(const ConvShape& shape);
bool conv_dgrad_serves(const ConvShape& shape);

}  // namespace rnk::cpu
