// conv_fwd and conv_dgrad in fp32, one group, any shape, on tiles of bf16. Implicit GEMM as in
// conv_fwd_direct.cpp and conv_dgrad_direct.cpp.
#include "conv_split.h"

#include "cache.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "isa.h"
#include "scratch.h"

#define RNK_KERNELS "conv_split_kernels.h"
#include "foreach_amx.h"

namespace rnk::cpu {

// With fewer channels, much of what tiles multiply is nothing. Not by the size of the images: one
// of a batch gives what it gives alone.
bool conv_split_serves(const ConvShape& s) {
  return active_isa() == Isa::kAmx && s.groups == 1 && s.c >= 32 && s.k >= 32;
}

void conv_fwd_split([[maybe_unused]] const ConvFwdParams& params,
                    [[maybe_unused]] ParallelFor parallel_for) {
  RNK_CALL_AMX(conv_fwd_split, params, parallel_for);
}

int64_t conv_fwd_split_floats([[maybe_unused]] const ConvShape& shape) {
  RNK_CALL_AMX(conv_fwd_split_floats, shape);
}

void conv_fwd_split_pack([[maybe_unused]] const ConvFwdParams& params,
                         [[maybe_unused]] float* packed,
                         [[maybe_unused]] ParallelFor parallel_for) {
  RNK_CALL_AMX(conv_fwd_split_pack, params, packed, parallel_for);
}

void conv_dgrad_split([[maybe_unused]] const ConvDgradParams& params,
                      [[maybe_unused]] ParallelFor parallel_for) {
  RNK_CALL_AMX(conv_dgrad_split, params, parallel_for);
}

}  // namespace rnk::cpu
