// Launcher of bn_act_bwd_reduce.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/bn_act_bwd_params.h"

namespace rnk::cuda {

// Bytes at params.workspace; on the current device.
int64_t bn_act_bwd_reduce_workspace(const BnActBwdReduceParams& params);

// Enqueues on `stream`; errors are left in cudaGetLastError().
void bn_act_bwd_reduce(const BnActBwdReduceParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
