// bn_bwd_apply: dy = A * g' + B * (y - mean) + C, g' = g * act'(scale * y + bias) or g.
// Memory bound: 2 reads, 1 write.
#include "bn_bwd_apply.h"

#include "channel_plan.h"
#include "isa.h"

#define RNK_KERNELS "bn_bwd_apply_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void bn_bwd_apply(const BnBwdApplyParams& params, ParallelFor parallel_for) {
  if (params.outer * params.channels * params.inner == 0) return;
  RNK_CALL_BEST_ISA(bn_bwd_apply, params, parallel_for);
}

}  // namespace rnk::cpu
