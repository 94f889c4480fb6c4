// bn_bwd_finalize: sums of g and g * xhat [2, C] -> A, B, C [3, C] of dy = A * g + B * (y - mean) +
// C. Computed in fp64.
#include "bn_bwd_finalize.h"
#include "launch.h"
#include "vector_value.cuh"

namespace rnk::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kVectorThreads)
    bn_bwd_finalize_channels(const BnBwdFinalizeParams p) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kVectorThreads + threadIdx.x;
  if (c >= p.channels) return;
  const double count = *static_cast<const T*>(p.count), m = count < 1 ? 1 : count;
  const double rstd = static_cast<const T*>(p.rstd)[c], a = get(p.gamma, c, 1) * rstd;
  const T* sums = static_cast<const T*>(p.sums) + c;
  T* abc = static_cast<T*>(p.abc) + c;
  abc[0] = static_cast<T>(a);
  abc[p.channels] = static_cast<T>(-a * rstd * sums[p.channels] / m);
  abc[2 * p.channels] = static_cast<T>(-a * sums[0] / m);
}

}  // namespace

void bn_bwd_finalize(const BnBwdFinalizeParams& params, cudaStream_t stream) {
  if (params.channels == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(params.channels, kVectorThreads));
  if (params.dtype == DType::kFloat64) {
    bn_bwd_finalize_channels<double><<<blocks, kVectorThreads, 0, stream>>>(params);
  } else {
    bn_bwd_finalize_channels<float><<<blocks, kVectorThreads, 0, stream>>>(params);
  }
}

}  // namespace rnk::cuda
