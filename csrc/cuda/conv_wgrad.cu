// Filter gradient: the implicit GEMM where it serves, else the generic kernel.
#include "conv_choice.h"
#include "conv_generic_wgrad.h"
#include "conv_wgrad.h"
#include "igemm_wgrad.h"

namespace rnk::cuda {
namespace {

bool takes_igemm(const ConvWgrad& params) {
  return !generic_is_wanted() && igemm_wgrad_serves(params);
}

}  // namespace

int64_t conv_wgrad_workspace(const ConvWgrad& params) {
  return takes_igemm(params) ? igemm_wgrad_workspace(params) : conv_generic_wgrad_workspace(params);
}

void conv_wgrad(const ConvWgrad& params, cudaStream_t stream) {
  if (takes_igemm(params)) return igemm_wgrad(params, stream);
  conv_generic_wgrad(params, stream);
}

}  // namespace rnk::cuda
