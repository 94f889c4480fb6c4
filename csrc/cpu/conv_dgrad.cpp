#include "conv_dgrad.h"

#include "winograd.h"

namespace rnk::cpu {

void conv_dgrad(const ConvDgradParams& params, ParallelFor parallel_for) {
  conv_dgrad_winograd(params, parallel_for);
}

}  // namespace rnk::cpu
