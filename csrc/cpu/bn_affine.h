// Launcher of bn_affine.cpp.
#pragma once

#include "../common/bn_vectors_params.h"
#include "parallel.h"

namespace rnk::cpu {

void bn_affine(const BnAffineParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
