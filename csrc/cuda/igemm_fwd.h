// The forward convolution as an implicit GEMM.
#pragma once

#include <cuda_runtime.h>

#include "conv_params.h"
#include "igemm_choice.h"

namespace rnk::cuda {

// Whether these kernels can take the problem. The generic one takes the rest: fp64, groups of few
// channels, filters of more than 15 rows or columns, indices that do not fit 32 bits.
bool igemm_fwd_fits(const ConvFwd& conv);

// The same on this device, which must be sm_80 or later.
bool igemm_fwd_serves(const ConvFwd& conv);

IgemmChoice igemm_fwd_choice(const ConvFwd& conv, int multiprocessors);

int64_t igemm_fwd_workspace(const ConvFwd& conv);

void igemm_fwd(const ConvFwd& conv, cudaStream_t stream);

}  // namespace rnk::cuda
