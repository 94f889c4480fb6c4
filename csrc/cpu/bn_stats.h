// Launcher of bn_stats.cpp.
#pragma once

#include "../common/bn_stats_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_stats(const BnStatsParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
