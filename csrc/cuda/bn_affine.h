// Launcher of bn_affine.cu.
#pragma once

#include <cuda_runtime.h>

#include "../common/bn_vectors_params.h"

namespace rnk::cuda {

// Enqueues on `stream`; errors are left in cudaGetLastError().
void bn_affine(const BnAffineParams& params, cudaStream_t stream);

}  // namespace rnk::cuda
