// Launcher of avg_pool_fwd.cpp.
#pragma once

#include "../common/pool_params.h"
#include "parallel.h"

namespace rnk::cpu {

void avg_pool_fwd(const AvgPoolFwdParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
