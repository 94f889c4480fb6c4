// Forward and transposed convolution by Winograd's F(2x2, 3x3): transform a block of input tiles,
// multiply by the transformed filter one frequency at a time, transform back, epilogue.
#include <vector>

#include "channel_plan.h"
#include "conv_partials.h"
#include "isa.h"
#include "scratch.h"
#include "winograd.h"
#include "winograd_plan.h"

#define RNK_KERNELS "winograd_conv_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void conv_fwd_winograd(const ConvFwdParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_fwd_winograd, params, parallel_for);
}

void conv_dgrad_winograd(const ConvDgradParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_dgrad_winograd, params, parallel_for);
}

}  // namespace rnk::cpu
