// Launcher of conv_dgrad_direct.cpp.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

void conv_dgrad_direct(const ConvDgradParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
