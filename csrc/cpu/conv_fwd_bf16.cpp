// conv_fwd in bf16, one group, any shape. Implicit GEMM: rows N * P * Q, columns K, depth R * S *
// C.
#include "cache.h"
#include "conv_fwd.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "scratch.h"

#define RNK_KERNELS "conv_fwd_bf16_kernels.h"
#include "foreach_bf16_isa.h"

namespace rnk::cpu {

void conv_fwd(const ConvFwdParamsOf<BFloat16>& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_BF16_ISA(conv_fwd_bf16, params, parallel_for);
}

}  // namespace rnk::cpu
