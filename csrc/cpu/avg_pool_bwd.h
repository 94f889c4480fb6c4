// Launcher of avg_pool_bwd.cpp.
#pragma once

#include "../common/pool_params.h"
#include "parallel.h"

namespace rnk::cpu {

void avg_pool_bwd(const AvgPoolBwdParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
