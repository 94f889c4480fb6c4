// The implicit-GEMM kernels of input gradients on tf32 operands.
#include "igemm_gradient.cuh"
#include "igemm_launch.cuh"

namespace rnk::cuda {

void igemm_dgrad_tf32(const Igemm& p, const IgemmGradient& out, IgemmChoice choice, int groups,
                      cudaStream_t stream) {
  IgemmLaunch<IgemmGradientTile, float>{p, out, choice, groups, stream}.on_tensor_cores<Tf32>();
}

}  // namespace rnk::cuda
