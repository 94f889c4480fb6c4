#include "conv_wgrad.h"

#include "conv_split.h"
#include "conv_wgrad_direct.h"
#include "winograd.h"

namespace rnk::cpu {

void conv_wgrad(const ConvWgradParams& params, ParallelFor parallel_for) {
  if (winograd_serves(params.shape)) return conv_wgrad_winograd(params, parallel_for);
  if (conv_split_serves(params.shape)) return conv_wgrad_split(params, parallel_for);
  conv_wgrad_direct(params, parallel_for);
}

}  // namespace rnk::cpu
