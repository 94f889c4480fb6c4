#include "conv_fwd.h"

#include "conv_fwd_direct.h"
#include "conv_split.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_fwd(const ConvFwdParams& params, ParallelFor parallel_for) {
  switch (params.kernel) {
    case ConvKernel::kDirect:
      return conv_fwd_direct(params, parallel_for);
    case ConvKernel::kSplit:
      return conv_fwd_split(params, parallel_for);
    default:
      return conv_fwd_winograd(params, parallel_for);
  }
}

int64_t conv_fwd_packed_floats(const ConvFwdParams& params) {
  switch (params.kernel) {
    case ConvKernel::kDirect:
      return conv_fwd_direct_floats(params.shape);
    case ConvKernel::kSplit:
      return conv_fwd_split_floats(params.shape);
    default:
      return conv_fwd_winograd_floats(params);
  }
}

void conv_fwd_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for) {
  switch (params.kernel) {
    case ConvKernel::kDirect:
      return conv_fwd_direct_pack(params, packed, parallel_for);
    case ConvKernel::kSplit:
      return conv_fwd_split_pack(params, packed, parallel_for);
    default:
      return conv_fwd_winograd_pack(params, packed, parallel_for);
  }
}

}  // namespace rnk::cpu
