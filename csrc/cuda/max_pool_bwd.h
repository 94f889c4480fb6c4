// Launcher of max_pool_bwd.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/pool_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void max_pool_bwd(const MaxPoolBwdParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
