// The compiled implicit-GEMM kernels.
#pragma once

#include <cuda_runtime.h>

#include "igemm_choice.h"
#include "igemm_outputs.h"
#include "igemm_params.h"
#include "igemm_wgrad_params.h"

namespace rnk::cuda {

// The tile for rows x columns outputs in each of `groups` groups; RNK_CUDA_TILE=128x128, 128x64 or
// 64x64 overrides it.
IgemmTileKind choose_tile(int64_t rows, int64_t columns, int64_t groups, int multiprocessors);

// The kernels, by direction and operand type. The fp32 ones have tiles of 128 x 64 and no pointwise
// addressing.
using IgemmFwdLauncher = void(const Igemm& p, const IgemmOutput& out, IgemmChoice choice,
                              int groups, cudaStream_t stream);
IgemmFwdLauncher igemm_fwd_f16, igemm_fwd_bf16, igemm_fwd_tf32, igemm_fwd_f32;
using IgemmDgradLauncher = void(const Igemm& p, const IgemmGradient& out, IgemmChoice choice,
                                int groups, cudaStream_t stream);
IgemmDgradLauncher igemm_dgrad_f16, igemm_dgrad_bf16, igemm_dgrad_tf32, igemm_dgrad_f32;

using IgemmWgradLauncher = void(const IgemmWgrad& p, const IgemmWgradChoice& choice, int groups,
                                cudaStream_t stream);
IgemmWgradLauncher igemm_wgrad_f16, igemm_wgrad_bf16, igemm_wgrad_tf32, igemm_wgrad_f32;

}  // namespace rnk::cuda
