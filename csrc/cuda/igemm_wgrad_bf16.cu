// The implicit-GEMM kernels of filter gradients on bf16 operands.
#include "igemm_wgrad_launch.cuh"

namespace rnk::cuda {

void igemm_wgrad_bf16(const IgemmWgrad& p, const IgemmWgradChoice& choice, int groups,
                      cudaStream_t stream) {
  WgradLaunch<__nv_bfloat16>{p, choice, groups, stream}.on_tensor_cores<__nv_bfloat16>();
}

}  // namespace rnk::cuda
