// The implicit-GEMM kernels of filter gradients on fp16 operands.
#include "igemm_wgrad_launch.cuh"

namespace rnk::cuda {

void igemm_wgrad_f16(const IgemmWgrad& p, const IgemmWgradChoice& choice, int groups,
                     cudaStream_t stream) {
  WgradLaunch<__half>{p, choice, groups, stream}.on_tensor_cores<__half>();
}

}  // namespace rnk::cuda
