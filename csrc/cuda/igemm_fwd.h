// The forward convolution as an implicit GEMM.
#pragma once

#include "conv_params.h"
#include "igemm_launch.h"

namespace rnk::cuda {

// Whether these kernels take the problem; the generic one takes the rest: fp64, other GPUs than
// sm_80 and later, groups of few channels, filters of more than 15 rows or columns, indices that do
// not fit 32 bits.
bool igemm_fwd_serves(const ConvFwd& conv);

IgemmChoice igemm_fwd_choice(const ConvFwd& conv);

int64_t igemm_fwd_workspace(const ConvFwd& conv);

void igemm_fwd(const ConvFwd& conv, cudaStream_t stream);

}  // namespace rnk::cuda
