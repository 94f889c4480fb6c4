// The implicit-GEMM kernels of filter gradients on tf32 operands.
#include "igemm_wgrad_launch.cuh"

namespace rnk::cuda {

void igemm_wgrad_tf32(const IgemmWgrad& p, const IgemmWgradChoice& choice, int groups,
                      cudaStream_t stream) {
  WgradLaunch<float>{p, choice, groups, stream}.on_tensor_cores<Tf32>();
}

}  // namespace rnk::cuda
