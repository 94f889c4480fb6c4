// Launcher of bn_bwd_apply.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/bn_act_bwd_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void bn_bwd_apply(const BnBwdApplyParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
