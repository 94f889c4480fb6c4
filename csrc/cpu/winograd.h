// Winograd's minimal filtering for 3x3 convolutions of stride 1 (Lavin and Gray 2016). F(2x2, 3x3):
// four outputs of a tile from 16 products instead of 36; its error is below that of a direct sum of
// 9 C products, since it sums C. F(4x4, 3x3): 16 outputs from 36 products instead of 144, by
// transforms that make several times the error; forward and for the gradient of the input, where
// params.kernel asks for it.
#pragma once

#include "conv_params.h"
#include "parallel.h"

namespace rnk::cpu {

// Whether these kernels serve the shape, and are expected to be faster than the direct ones.
bool winograd_serves(const ConvShape& shape);

void conv_fwd_winograd(const ConvFwdParams& params, ParallelFor parallel_for);
int64_t conv_fwd_winograd_floats(const ConvFwdParams& params);
void conv_fwd_winograd_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for);
void conv_dgrad_winograd(const ConvDgradParams& params, ParallelFor parallel_for);
void conv_wgrad_winograd(const ConvWgradParams& params, ParallelFor parallel_for);

}  // namespace rnk::cpu
