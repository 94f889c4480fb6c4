// conv_wgrad for any shape: dw = the gradient of the filter where the convolution read in(x).
// Implicit GEMM: rows K, columns R * S * C, depth N * P * Q. Sums run over a block of pixels in
// registers and over the blocks of a chunk in fp32; chunks are cut by the shape and added in order.
#include "conv_wgrad_direct.h"

#include "cache.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "isa.h"
#include "scratch.h"

#define RNK_KERNELS "conv_wgrad_direct_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void conv_wgrad_direct(const ConvWgradParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_wgrad_direct, params, parallel_for);
}

}  // namespace rnk::cpu
