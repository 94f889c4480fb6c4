// conv_wgrad in fp32, one group, any shape, on tiles of bf16. Implicit GEMM as in
// conv_wgrad_direct.cpp.
#include "cache.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "conv_split.h"
#include "isa.h"
#include "scratch.h"

#define RNK_KERNELS "conv_wgrad_split_kernels.h"
#include "foreach_amx.h"

namespace rnk::cpu {

void conv_wgrad_split([[maybe_unused]] const ConvWgradParams& params,
                      [[maybe_unused]] ParallelFor parallel_for) {
  RNK_CALL_AMX(conv_wgrad_split, params, parallel_for);
}

}  // namespace rnk::cpu
