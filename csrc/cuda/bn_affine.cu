// bn_affine: running statistics [C] -> mean, rstd, scale, bias [C] of an evaluated or frozen batch
// norm. Computed in fp64.
#include "bn_affine.h"
#include "launch.h"
#include "vector_value.cuh"

namespace rnk::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kVectorThreads) bn_affine_channels(const BnAffineParams p) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kVectorThreads + threadIdx.x;
  if (c >= p.channels) return;
  const double mean = get(p.running_mean, c, 0) - get(p.conv_bias, c, 0);
  store_affine<T>(p, c, mean, get(p.running_var, c, 1));
}

}  // namespace

void bn_affine(const BnAffineParams& params, cudaStream_t stream) {
  if (params.channels == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(params.channels, kVectorThreads));
  if (params.dtype == DType::kFloat64) {
    bn_affine_channels<double><<<blocks, kVectorThreads, 0, stream>>>(params);
  } else {
    bn_affine_channels<float><<<blocks, kVectorThreads, 0, stream>>>(params);
  }
}

}  // namespace rnk::cuda
