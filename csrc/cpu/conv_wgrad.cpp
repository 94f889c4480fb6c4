#include "conv_wgrad.h"

#include "conv_wgrad_direct.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_wgrad(const ConvWgradParams& params, ParallelFor parallel_for) {
  const auto run = winograd_serves(params.shape) ? conv_wgrad_winograd : conv_wgrad_direct;
  run(params, parallel_for);
}

}  // namespace rnk::cpu
