// Launcher of bn_bwd_finalize.cpp.
#pragma once

#include "../common/bn_vectors_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_bwd_finalize(const BnBwdFinalizeParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
