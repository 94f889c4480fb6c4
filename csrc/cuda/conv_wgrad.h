// Filter gradient of a convolution on the GPU: chooses the kernel.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"

namespace rnk::cuda {

// Bytes that the call needs as params.workspace.
int64_t conv_wgrad_workspace(const ConvWgrad& params);

// Enqueues on `stream`; errors are left in cudaGetLastError().
void conv_wgrad(const ConvWgrad& params, cudaStream_t stream);

}  // namespace rnk::cuda
