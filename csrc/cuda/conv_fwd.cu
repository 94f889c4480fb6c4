// Forward convolution: the implicit GEMM where it serves, else the generic kernel.
#include "conv_choice.h"
#include "conv_fwd.h"
#include "conv_generic_fwd.h"
#include "igemm_fwd.h"

namespace rnk::cuda {
namespace {

bool takes_igemm(const ConvFwd& params) { return !generic_is_wanted() && igemm_fwd_serves(params); }

}  // namespace

int64_t conv_fwd_workspace(const ConvFwd& params) {
  return takes_igemm(params) ? igemm_fwd_workspace(params) : conv_generic_fwd_workspace(params);
}

void conv_fwd(const ConvFwd& params, cudaStream_t stream) {
  if (takes_igemm(params)) return igemm_fwd(params, stream);
  conv_generic_fwd(params, stream);
}

}  // namespace rnk::cuda
