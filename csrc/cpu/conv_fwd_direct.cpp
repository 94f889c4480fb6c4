// conv_fwd for any shape: y = conv(in_act(in_scale * x + in_bias), w) with the statistics of y, or
// act(scale * y + bias + residual). Implicit GEMM: rows N * P * Q, columns K, depth R * S * C.
#include "conv_fwd_direct.h"

#include "cache.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "isa.h"
#include "scratch.h"

#define RNK_KERNELS "conv_fwd_direct_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void conv_fwd_direct(const ConvFwdParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_fwd_direct, params, parallel_for);
}

int64_t conv_fwd_direct_floats(const ConvShape& shape) {
  RNK_CALL_BEST_ISA(conv_fwd_direct_floats, shape);
}

void conv_fwd_direct_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_fwd_direct_pack, params, packed, parallel_for);
}

}  // namespace rnk::cpu
