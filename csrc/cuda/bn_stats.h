// Launcher of bn_stats.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/bn_stats_params.h"

namespace rnk::cuda {

// Bytes at params.workspace; on the current device.
int64_t bn_stats_workspace(const BnStatsParams& params);

// Enqueues on `stream`; errors are left in cudaGetLastError().
void bn_stats(const BnStatsParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
