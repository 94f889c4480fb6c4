// bn_act_fwd: z = act(scale * y + bias [+ residual | + scale2 * y2 + bias2]), and optionally the
// bits t > 0. Memory bound: 1-2 reads, 1 write.
#include "bn_act_fwd.h"

#include "channel_plan.h"
#include "isa.h"

#define RNK_KERNELS "bn_act_fwd_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void bn_act_fwd(const BnActFwdParams& params, ParallelFor parallel_for) {
  if (params.outer * params.channels * params.inner == 0) return;
  RNK_CALL_BEST_ISA(bn_act_fwd, params, parallel_for);
}

}  // namespace rnk::cpu
