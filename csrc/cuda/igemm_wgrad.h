// The gradient of a convolution's filter as an implicit GEMM.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"
#include "igemm_choice.h"

namespace rnk::cuda {

// As igemm_fwd_serves().
bool igemm_wgrad_serves(const ConvWgrad& conv);

IgemmWgradChoice igemm_wgrad_choice(const ConvWgrad& conv);

int64_t igemm_wgrad_workspace(const ConvWgrad& conv);

void igemm_wgrad(const ConvWgrad& conv, cudaStream_t stream);

}  // namespace rnk::cuda
