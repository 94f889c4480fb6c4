// Launcher of conv_wgrad_direct.cpp.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

void conv_wgrad_direct(const ConvWgradParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
