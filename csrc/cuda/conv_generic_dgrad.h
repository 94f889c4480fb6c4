// Launcher of conv_generic_dgrad.cu.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"

namespace rnk::cuda {

int64_t conv_generic_dgrad_workspace(const ConvDgrad& params);

// Any shape and dtype.
void conv_generic_dgrad(const ConvDgrad& params, cudaStream_t stream);

}  // namespace rnk::cuda
