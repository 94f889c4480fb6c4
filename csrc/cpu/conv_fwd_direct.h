// Launcher of conv_fwd_direct.cpp.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

void conv_fwd_direct(const ConvFwdParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
