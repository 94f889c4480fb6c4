#include "conv_dgrad.h"

#include "conv_dgrad_direct.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_dgrad(const ConvDgradParams& params, ParallelFor parallel_for) {
  const auto run = winograd_serves(params.shape) ? conv_dgrad_winograd : conv_dgrad_direct;
  run(params, parallel_for);
}

}  // namespace rnk::cpu
