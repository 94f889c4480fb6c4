// Launcher of avg_pool_bwd.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/pool_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void avg_pool_bwd(const AvgPoolBwdParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
