// Launcher of bn_act_fwd.cpp.
#pragma once

#include "../common/bn_act_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_act_fwd(const BnActFwdParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
