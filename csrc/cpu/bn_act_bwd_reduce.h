// Launcher of bn_act_bwd_reduce.cpp.
#pragma once

#include "../common/bn_act_bwd_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_act_bwd_reduce(const BnActBwdReduceParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
