// The implicit-GEMM kernels of input gradients on fp16 operands.
#include "igemm_gradient.cuh"
#include "igemm_launch.cuh"

namespace rnk::cuda {

void igemm_dgrad_f16(const Igemm& p, const IgemmGradient& out, IgemmChoice choice, int groups,
                     cudaStream_t stream) {
  IgemmLaunch<IgemmGradientTile, __half>{p, out, choice, groups, stream}.on_tensor_cores<__half>();
}

}  // namespace rnk::cuda
