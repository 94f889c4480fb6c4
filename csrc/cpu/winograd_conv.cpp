// Forward and transposed convolution by Winograd: transform a block of input tiles,
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

// With few channels the transforms cost more than the products save.
bool winograd_serves(const ConvShape& s) {
  const bool geometry = s.r == 3 && s.s == 3 && s.stride_h == 1 && s.stride_w == 1 &&
                        s.dilation_h == 1 && s.dilation_w == 1 && s.groups == 1 &&
                        s.padding_h <= 2 && s.padding_w <= 2;
  return geometry && s.n * s.p * s.q > 0 && s.c >= 32 && s.k >= 32;
}

void conv_fwd_winograd(const ConvFwdParams& params, ParallelFor parallel_for) {
  if (params.kernel == ConvKernel::kWinograd4) {
    RNK_CALL_BEST_ISA(conv_fwd_winograd<4>, params, parallel_for);
  }
  RNK_CALL_BEST_ISA(conv_fwd_winograd<2>, params, parallel_for);
}

int64_t conv_fwd_winograd_floats(const ConvFwdParams& params) {
  if (params.kernel == ConvKernel::kWinograd4) {
    RNK_CALL_BEST_ISA(conv_fwd_winograd_floats<4>, params.shape);
  }
  RNK_CALL_BEST_ISA(conv_fwd_winograd_floats<2>, params.shape);
}

void conv_fwd_winograd_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for) {
  if (params.kernel == ConvKernel::kWinograd4) {
    RNK_CALL_BEST_ISA(conv_fwd_winograd_pack<4>, params, packed, parallel_for);
  }
  RNK_CALL_BEST_ISA(conv_fwd_winograd_pack<2>, params, packed, parallel_for);
}

void conv_dgrad_winograd(const ConvDgradParams& params, ParallelFor parallel_for) {
  if (params.kernel == ConvKernel::kWinograd4) {
    RNK_CALL_BEST_ISA(conv_dgrad_winograd<4>, params, parallel_for);
  }
  RNK_CALL_BEST_ISA(conv_dgrad_winograd<2>, params, parallel_for);
}

}  // namespace rnk::cpu
