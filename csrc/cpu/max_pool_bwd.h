// Launcher of max_pool_bwd.cpp.
#pragma once

#include "../common/pool_params.h"
#include "parallel.h"

namespace rnk::cpu {

void max_pool_bwd(const MaxPoolBwdParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
