#include "conv_dgrad.h"

#include "conv_dgrad_direct.h"
#include "conv_split.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_dgrad(const ConvDgradParams& params, ParallelFor parallel_for) {
  switch (params.kernel) {
    case ConvKernel::kDirect:
      return conv_dgrad_direct(params, parallel_for);
    case ConvKernel::kSplit:
      return conv_dgrad_split(params, parallel_for);
    default:
      return conv_dgrad_winograd(params, parallel_for);
  }
}

}  // namespace rnk::cpu
