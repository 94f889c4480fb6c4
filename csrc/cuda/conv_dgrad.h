// Input gradient of a convolution on the GPU: chooses the kernel.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"

namespace rnk::cuda {

// Bytes that the call needs as params.workspace.
int64_t conv_dgrad_workspace(const ConvDgrad& params);

// Enqueues on `stream`; errors are left in cudaGetLastError().
void conv_dgrad(const ConvDgrad& params, cudaStream_t stream);

// Whether dy is made on the way where params.next has a g; else bn_bwd_apply goes in front.
// RNK_CUDA_APPLY=separate: never.
bool conv_dgrad_applies(const ConvDgrad& params);

}  // namespace rnk::cuda
