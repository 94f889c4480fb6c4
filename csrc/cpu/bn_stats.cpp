// bn_stats: per channel count, mean and M2 = sum (x - mean)^2, reading x once.
// Blocks of a few dozen elements per channel are summed as differences from a pivot, in the compute
// type, and merged in fp64 by Chan's formula. The pivot is the mean so far: what the differences
// lose by its distance to the block's mean is less than 2 eps of what the merge adds for that
// distance.
#include "bn_stats.h"

#include "channel_plan.h"
#include "isa.h"
#include "stats_columns.h"

#define RNK_KERNELS "bn_stats_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void bn_stats(const BnStatsParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(bn_stats, params, parallel_for);
}

}  // namespace rnk::cpu
