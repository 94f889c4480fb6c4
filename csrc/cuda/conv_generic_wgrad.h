// Launcher of conv_generic_wgrad.cu.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"

namespace rnk::cuda {

int64_t conv_generic_wgrad_workspace(const ConvWgrad& params);

// Any shape and dtype.
void conv_generic_wgrad(const ConvWgrad& params, cudaStream_t stream);

}  // namespace rnk::cuda
