// bn_stats: per channel count, mean and M2 = sum (x - mean)^2, reading x once.
// Blocks of a few dozen elements per channel are summed as differences from a pivot, in the compute
// type, and merged in fp64 by Chan's formula. The pivot is the mean so far: what the differences
// lose by its distance to the block's mean is less than 2 eps of what the merge adds for that
// distance.
#include "bn_stats.h"

#include "channel_plan.h"
#include "isa.h"

namespace rnk::cpu {

// Statistics of `size` columns, all of the same count.
struct StatsColumns {
  int64_t count;
  double* mean;  // [size]
  double* m2;    // [size]
};

// into = into merged with (count, mean[i], m2[i]).
inline void merge_stats(StatsColumns& into, int64_t count, const double* mean, const double* m2,
                        int64_t size) {
  const double all = static_cast<double>(into.count + count);
  const double share = static_cast<double>(count) / all;
  const double weight = static_cast<double>(into.count) * share;
  for (int64_t i = 0; i < size; ++i) {
    const double delta = mean[i] - into.mean[i];
    into.mean[i] += delta * share;
    into.m2[i] += m2[i] + delta * delta * weight;
  }
  into.count += count;
}

}  // namespace rnk::cpu

#define RNK_KERNELS "bn_stats_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void bn_stats(const BnStatsParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(bn_stats, params, parallel_for);
}

}  // namespace rnk::cpu
