// conv_wgrad in bf16, one group, any shape. Implicit GEMM: rows K, columns R * S * C, depth N * P *
// Q.
#include "cache.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "conv_wgrad.h"
#include "scratch.h"

#define RNK_KERNELS "conv_wgrad_bf16_kernels.h"
#include "foreach_bf16_isa.h"

namespace rnk::cpu {

void conv_wgrad(const ConvWgradParamsOf<BFloat16>& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_BF16_ISA(conv_wgrad_bf16, params, parallel_for);
}

}  // namespace rnk::cpu
