#include "conv_fwd.h"
#include "conv_generic_fwd.h"

namespace rnk::cuda {

int64_t conv_fwd_workspace(const ConvFwd& params) { return conv_generic_fwd_workspace(params); }

void conv_fwd(const ConvFwd& params, cudaStream_t stream) { conv_generic_fwd(params, stream); }

}  // namespace rnk::cuda
