// Launcher of bn_bwd_finalize.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/bn_vectors_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void bn_bwd_finalize(const BnBwdFinalizeParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
