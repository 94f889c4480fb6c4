// Launcher of conv_fwd_direct.cpp.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

void conv_fwd_direct(const ConvFwdParams& params, ParallelFor parallel_for);
int64_t conv_fwd_direct_floats(const ConvShape& shape);
void conv_fwd_direct_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for);

}  // namespace rnk::cpu
