// Convolutions of fp32, one group, on units that multiply bf16, as split_tile.h does it: AMX alone,
// whose peak is 16 times that of the vector units, so that six products in the place of one are
// worth while.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

// Whether these kernels serve the shape here, and are expected to be faster than the others.
bool conv_split_serves(const ConvShape& shape);

void conv_fwd_split(const ConvFwdParams& params, ParallelFor parallel_for);
int64_t conv_fwd_split_floats(const ConvShape& shape);
void conv_fwd_split_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for);
void conv_dgrad_split(const ConvDgradParams& params, ParallelFor parallel_for);
void conv_wgrad_split(const ConvWgradParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
