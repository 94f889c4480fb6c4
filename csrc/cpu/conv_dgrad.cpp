#include "conv_dgrad.h"

#include "conv_dgrad_direct.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_dgrad(const ConvDgradParams& params, ParallelFor parallel_for) {
  const auto run = params.kernel == ConvKernel::kDirect ? conv_dgrad_direct : conv_dgrad_winograd;
  run(params, parallel_for);
}

}  // namespace rnk::cpu
