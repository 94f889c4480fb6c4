// conv_dgrad in bf16, one group, any shape. Implicit GEMM: rows are pixels of x, columns C, depth R
// * S * K.
#include "cache.h"
#include "conv_dgrad.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "scratch.h"

#define RNK_KERNELS "conv_dgrad_bf16_kernels.h"
#include "foreach_bf16_isa.h"

namespace rnk::cpu {

void conv_dgrad(const ConvDgradParamsOf<BFloat16>& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_BF16_ISA(conv_dgrad_bf16, params, parallel_for);
}

}  // namespace rnk::cpu
