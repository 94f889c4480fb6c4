// Filter gradient of a convolution on the CPU: chooses the kernel.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

void conv_wgrad(const ConvWgradParams& params, ParallelFor parallel_for);
void conv_wgrad(const ConvWgradParamsOf<BFloat16>& params, ParallelFor parallel_for);  // one group

}  // namespace rnk::cpu
