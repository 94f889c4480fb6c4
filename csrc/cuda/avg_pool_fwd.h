// Launcher of avg_pool_fwd.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/pool_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void avg_pool_fwd(const AvgPoolFwdParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
