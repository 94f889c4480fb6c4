// Launcher of bn_act_bwd_reduce.cpp.
#pragma once

#include "../common/bn_act_bwd_params.h"
#include "parallel.h"

namespace rnk::cpu {

inline int64_t bn_act_bwd_reduce_workspace(const BnActBwdReduceParams&) { return 0; }

void bn_act_bwd_reduce(const BnActBwdReduceParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
