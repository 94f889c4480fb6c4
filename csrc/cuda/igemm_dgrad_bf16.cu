// The implicit-GEMM kernels of input gradients on bf16 operands.
#include "igemm_gradient.cuh"
#include "igemm_launch.cuh"

namespace rnk::cuda {

void igemm_dgrad_bf16(const Igemm& p, const IgemmGradient& out, IgemmChoice choice, int groups,
                      cudaStream_t stream) {
  IgemmLaunch<IgemmGradientTile, __nv_bfloat16>{p, out, choice, groups, stream}
      .on_tensor_cores<__nv_bfloat16>();
}

}  // namespace rnk::cuda
