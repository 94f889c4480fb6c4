// Launcher of max_pool_fwd.cpp.
#pragma once

#include "../common/pool_params.h"
#include "parallel.h"

namespace rnk::cpu {

void max_pool_fwd(const MaxPoolFwdParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
