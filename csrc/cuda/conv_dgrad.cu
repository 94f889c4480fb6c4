// Input gradient: the implicit GEMM where it serves, else the generic kernel.
#include "conv_choice.h"
#include "conv_dgrad.h"
#include "conv_generic_dgrad.h"
#include "igemm_dgrad.h"

namespace rnk::cuda {
namespace {

bool takes_igemm(const ConvDgrad& params) {
  return !generic_is_wanted() && igemm_dgrad_serves(params);
}

}  // namespace

int64_t conv_dgrad_workspace(const ConvDgrad& params) {
  return takes_igemm(params) ? igemm_dgrad_workspace(params) : conv_generic_dgrad_workspace(params);
}

bool conv_dgrad_applies(const ConvDgrad& params) {
  return takes_igemm(params) && !apply_is_separate() && igemm_dgrad_applies(params);
}

void conv_dgrad(const ConvDgrad& params, cudaStream_t stream) {
  if (takes_igemm(params)) return igemm_dgrad(params, stream);
  conv_generic_dgrad(params, stream);
}

}  // namespace rnk::cuda
