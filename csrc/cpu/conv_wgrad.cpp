#include "conv_wgrad.h"

#include "winograd.h"

namespace rnk::cpu {

void conv_wgrad(const ConvWgradParams& params, ParallelFor parallel_for) {
  conv_wgrad_winograd(params, parallel_for);
}

}  // namespace rnk::cpu
