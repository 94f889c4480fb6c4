#include "conv_generic_wgrad.h"
#include "conv_wgrad.h"

namespace rnk::cuda {

int64_t conv_wgrad_workspace(const ConvWgrad& params) {
  return conv_generic_wgrad_workspace(params);
}

void conv_wgrad(const ConvWgrad& params, cudaStream_t stream) {
  conv_generic_wgrad(params, stream);
}

}  // namespace rnk::cuda
