// avg_pool_bwd: dx = sum of dz / divisor over the windows the element lies in.
// channels_last: packs of channels, tap by tap. contiguous: plane by plane. Memory bound.
#include "avg_pool_bwd.h"

#include <limits>

#include "isa.h"
#include "pool_window.h"

#define RNK_KERNELS "avg_pool_bwd_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void avg_pool_bwd(const AvgPoolBwdParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(avg_pool_bwd, params, parallel_for);
}

}  // namespace rnk::cpu
