// max_pool_fwd: z = max over the window of act(scale * x + bias), and the tap of the maximum as a
// byte. channels_last: packs of channels, tap by tap. contiguous: plane by plane. Memory bound.
#include "max_pool_fwd.h"

#include <limits>

#include "isa.h"
#include "pool_window.h"

#define RNK_KERNELS "max_pool_fwd_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void max_pool_fwd(const MaxPoolFwdParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(max_pool_fwd, params, parallel_for);
}

}  // namespace rnk::cpu
