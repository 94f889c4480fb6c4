// The gradient of a convolution's input as implicit GEMMs.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"
#include "igemm_choice.h"

namespace rnk::cuda {

// As igemm_fwd_serves().
bool igemm_dgrad_serves(const ConvDgrad& conv);

// Whether these kernels can make dy of next.g: 1 x 1 convolutions without padding, on tensor cores.
bool igemm_dgrad_applies(const ConvDgrad& conv);

int64_t igemm_dgrad_workspace(const ConvDgrad& conv);

void igemm_dgrad(const ConvDgrad& conv, cudaStream_t stream);

}  // namespace rnk::cuda
