// The forward implicit-GEMM kernels on fp32, not rounded to tf32, operands.
#include "igemm_launch.cuh"
#include "igemm_output.cuh"

namespace rnk::cuda {

void igemm_fwd_f32(const Igemm& p, const IgemmOutput& out, IgemmChoice choice, int groups,
                   cudaStream_t stream) {
  IgemmLaunch<IgemmOutputTile, float>{p, out, choice, groups, stream}.on_float_units();
}

}  // namespace rnk::cuda
