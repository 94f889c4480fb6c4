// avg_pool_fwd: z = mean over the window of act(scale * x + bias).
// channels_last: packs of channels, tap by tap. contiguous: plane by plane. Memory bound.
#include "avg_pool_fwd.h"

#include <limits>

#include "isa.h"
#include "pool_window.h"

#define RNK_KERNELS "avg_pool_fwd_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void avg_pool_fwd(const AvgPoolFwdParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(avg_pool_fwd, params, parallel_for);
}

}  // namespace rnk::cpu
