// The forward implicit-GEMM kernels on fp16 operands.
#include "igemm_launch.cuh"
#include "igemm_output.cuh"

namespace rnk::cuda {

void igemm_fwd_f16(const Igemm& p, const IgemmOutput& out, IgemmChoice choice, int groups,
                   cudaStream_t stream) {
  IgemmLaunch<IgemmOutputTile, __half>{p, out, choice, groups, stream}.on_tensor_cores<__half>();
}

}  // namespace rnk::cuda
