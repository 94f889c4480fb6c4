// The implicit-GEMM kernels of filter gradients on fp32, not rounded to tf32, operands.
#include "igemm_wgrad_launch.cuh"

namespace rnk::cuda {

void igemm_wgrad_f32(const IgemmWgrad& p, const IgemmWgradChoice& choice, int groups,
                     cudaStream_t stream) {
  WgradLaunch<float>{p, choice, groups, stream}.on_float_units();
}

}  // namespace rnk::cuda
