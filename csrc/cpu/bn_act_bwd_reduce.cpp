// bn_act_bwd_reduce: g = dz * act'(t) and per channel the sums of g and of g * (y - mean) * rstd,
// for one batch norm, one with a residual, or two added ones. Sums run in the compute type over a
// few dozen elements and in fp64 above, in an order that the shape alone decides.
#include "bn_act_bwd_reduce.h"

#include "channel_plan.h"
#include "isa.h"

#define RNK_KERNELS "bn_act_bwd_reduce_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void bn_act_bwd_reduce(const BnActBwdReduceParams& params, ParallelFor parallel_for) {
  if (params.channels == 0) return;
  RNK_CALL_BEST_ISA(bn_act_bwd_reduce, params, parallel_for);
}

}  // namespace rnk::cpu
