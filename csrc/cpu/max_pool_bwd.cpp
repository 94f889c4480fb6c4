// max_pool_bwd: dx = sum of the dz of the windows whose maximum the element is.
// channels_last: packs of channels, tap by tap. contiguous: plane by plane. Memory bound.
#include "max_pool_bwd.h"

#include <limits>

#include "isa.h"
#include "pool_window.h"

#define RNK_KERNELS "max_pool_bwd_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void max_pool_bwd(const MaxPoolBwdParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(max_pool_bwd, params, parallel_for);
}

}  // namespace rnk::cpu
