// Launcher of conv_generic_fwd.cu.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"

namespace rnk::cuda {

int64_t conv_generic_fwd_workspace(const ConvFwd& params);

// Any shape and dtype.
void conv_generic_fwd(const ConvFwd& params, cudaStream_t stream);

}  // namespace rnk::cuda
