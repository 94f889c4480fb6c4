// Launcher of bn_finalize.cpp.
#pragma once

#include "../common/bn_vectors_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_finalize(const BnFinalizeParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
