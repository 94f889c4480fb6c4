#include "conv_fwd.h"

#include "conv_fwd_direct.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_fwd(const ConvFwdParams& params, ParallelFor parallel_for) {
  const auto run = winograd_serves(params.shape) ? conv_fwd_winograd : conv_fwd_direct;
  run(params, parallel_for);
}

}  // namespace rnk::cpu
