// The forward implicit-GEMM kernels on bf16 operands.
#include "igemm_launch.cuh"
#include "igemm_output.cuh"

namespace rnk::cuda {

void igemm_fwd_bf16(const Igemm& p, const IgemmOutput& out, IgemmChoice choice, int groups,
                    cudaStream_t stream) {
  IgemmLaunch<IgemmOutputTile, __nv_bfloat16>{p, out, choice, groups, stream}
      .on_tensor_cores<__nv_bfloat16>();
}

}  // namespace rnk::cuda
