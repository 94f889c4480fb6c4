// Launcher of bn_stats.cpp.
#pragma once

#include "../common/bn_stats_params.h"
#include "parallel.h"

namespace rnk::cpu {

inline int64_t bn_stats_workspace(const BnStatsParams&) { return 0; }

void bn_stats(const BnStatsParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
