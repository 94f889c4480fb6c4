// Which channels_last convolutions our own kernels run, fp32 or bf16.
#pragma once

#include "../common/conv_params.h"
#include "../common/dtype.h"

namespace rnk::cpu {

// RNK_CPU_CONV=own: all that they can; torch: none; else those where ours are faster than torch's.
bool conv_fwd_serves(const ConvShape& shape, DType dtype);
bool conv_dgrad_serves(const ConvShape& shape, DType dtype);
bool conv_wgrad_serves(const ConvShape& shape, DType dtype);

}  // namespace rnk::cpu
