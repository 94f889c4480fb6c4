#include "conv_fwd.h"

#include "conv_fwd_direct.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_fwd(const ConvFwdParams& params, ParallelFor parallel_for) {
  const auto run = winograd_serves(params.shape) ? conv_fwd_winograd : conv_fwd_direct;
  run(params, parallel_for);
}

int64_t conv_fwd_packed_floats(const ConvShape& shape) {
  const auto floats = winograd_serves(shape) ? conv_fwd_winograd_floats : conv_fwd_direct_floats;
  return floats(shape);
}

void conv_fwd_pack(const ConvFwdParams& params, float* packed, ParallelFor parallel_for) {
  const auto pack = winograd_serves(params.shape) ? conv_fwd_winograd_pack : conv_fwd_direct_pack;
  pack(params, packed, parallel_for);
}

}  // namespace rnk::cpu
