#include "conv_fwd.h"

#include "winograd.h"

namespace rnk::cpu {

void conv_fwd(const ConvFwdParams& params, ParallelFor parallel_for) {
  conv_fwd_winograd(params, parallel_for);
}

}  // namespace rnk::cpu
