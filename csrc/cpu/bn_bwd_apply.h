// Launcher of bn_bwd_apply.cpp.
#pragma once

#include "../common/bn_act_bwd_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_bwd_apply(const BnBwdApplyParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
