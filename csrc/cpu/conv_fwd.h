// Forward convolution on the CPU: chooses the kernel.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

void conv_fwd(const ConvFwdParams& params, ParallelFor parallel_for);
void conv_fwd(const ConvFwdParamsOf<BFloat16>& params, ParallelFor parallel_for);  // one group

// The filter as conv_fwd multiplies it, for images of any size: what conv_fwd does at every call
// where params.packed is null. 0 floats: this shape's kernel takes filters as they are.
int64_t conv_fwd_packed_floats(const ConvFwdParams& params);
void conv_fwd_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for);

}  // namespace rnk::cpu
