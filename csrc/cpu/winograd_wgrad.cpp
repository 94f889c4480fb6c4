// Gradient of a 3x3 filter by the transpose of F(2x2, 3x3): transform blocks of input tiles and of
// output gradients, sum their products for each frequency, transform back.
#include "channel_plan.h"
#include "isa.h"
#include "scratch.h"
#include "winograd.h"
#include "winograd_plan.h"

#define RNK_KERNELS "winograd_wgrad_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void conv_wgrad_winograd(const ConvWgradParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_wgrad_winograd, params, parallel_for);
}

}  // namespace rnk::cpu
