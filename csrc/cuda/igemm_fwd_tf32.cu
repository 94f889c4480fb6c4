// The forward implicit-GEMM kernels on tf32 operands.
#include "igemm_launch.cuh"
#include "igemm_output.cuh"

namespace rnk::cuda {

void igemm_fwd_tf32(const Igemm& p, const IgemmOutput& out, IgemmChoice choice, int groups,
                    cudaStream_t stream) {
  IgemmLaunch<IgemmOutputTile, float>{p, out, choice, groups, stream}.on_tensor_cores<Tf32>();
}

}  // namespace rnk::cuda
