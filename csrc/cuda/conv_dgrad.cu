#include "conv_dgrad.h"
#include "conv_generic_dgrad.h"

namespace rnk::cuda {

int64_t conv_dgrad_workspace(const ConvDgrad& params) {
  return conv_generic_dgrad_workspace(params);
}

void conv_dgrad(const ConvDgrad& params, cudaStream_t stream) {
  conv_generic_dgrad(params, stream);
}

}  // namespace rnk::cuda
