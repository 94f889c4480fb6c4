// conv_dgrad for any shape: dx = the transposed convolution of dy [+ branch], and for the batch
// norm before it g = dx * act'(scale * y_prev + bias) with its sums. Implicit GEMM: rows are pixels
// of x, columns C, depth R * S * K, each phase of the stride with those taps alone that meet it.
#include "conv_dgrad_direct.h"

#include "cache.h"
#include "conv_gather.h"
#include "conv_partials.h"
#include "isa.h"
#include "scratch.h"

#define RNK_KERNELS "conv_dgrad_direct_kernels.h"
#include "foreach_isa.h"

namespace rnk::cpu {

void conv_dgrad_direct(const ConvDgradParams& params, ParallelFor parallel_for) {
  RNK_CALL_BEST_ISA(conv_dgrad_direct, params, parallel_for);
}

}  // namespace rnk::cpu
