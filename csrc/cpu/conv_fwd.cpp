#include "conv_fwd.h"

#include "conv_fwd_direct.h"
#include "winograd.h"

namespace rnk::cpu {
namespace {

bool is_direct(const ConvFwdParams& params) { return params.kernel == ConvKernel::kDirect; }

}  // namespace

void conv_fwd(const ConvFwdParams& params, ParallelFor parallel_for) {
  const auto run = is_direct(params) ? conv_fwd_direct : conv_fwd_winograd;
  run(params, parallel_for);
}

int64_t conv_fwd_packed_floats(const ConvFwdParams& params) {
  if (is_direct(params)) return conv_fwd_direct_floats(params.shape);
  return conv_fwd_winograd_floats(params);
}

void conv_fwd_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for) {
  const auto pack = is_direct(params) ? conv_fwd_direct_pack : conv_fwd_winograd_pack;
  pack(params, packed, parallel_for);
}

}  // namespace rnk::cpu
