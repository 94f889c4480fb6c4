// Launcher of bn_act_fwd.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/bn_act_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void bn_act_fwd(const BnActFwdParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
