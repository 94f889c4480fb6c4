// Single numbers of per-channel vectors of any float dtype, as fp64: for the ops on such vectors,
// which are too short to matter.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../common/bn_vectors_params.h"

namespace rnk::cuda {

constexpr int kVectorThreads = 256;

__device__ inline double get(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat32:
      return static_cast<const float*>(data)[i];
    case DType::kFloat16:
      return __half2float(static_cast<const __half*>(data)[i]);
    case DType::kBFloat16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    default:
      return static_cast<const double*>(data)[i];
  }
}

// An absent vector is `otherwise` everywhere.
__device__ inline double get(const VectorIn& v, int64_t i, double otherwise) {
  return v.data == nullptr ? otherwise : get(v.data, v.dtype, i);
}

__device__ inline void put(void* data, DType dtype, int64_t i, double value) {
  switch (dtype) {
    case DType::kFloat32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case DType::kFloat16:
      static_cast<__half*>(data)[i] = __double2half(value);
      return;
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(static_cast<float>(value));
      return;
    default:
      static_cast<double*>(data)[i] = value;
  }
}

// The affine form of a batch norm. bias is of mean and scale as stored, so that their rounding
// cancels in scale * y + bias where y is near the mean.
template <typename T, typename Params>
__device__ inline void store_affine(const Params& p, int64_t i, double mean, double var) {
  const T m = static_cast<T>(mean), rstd = static_cast<T>(1 / sqrt(var + p.eps));
  const T scale = static_cast<T>(get(p.gamma, i, 1) * rstd);
  static_cast<T*>(p.mean)[i] = m;
  static_cast<T*>(p.rstd)[i] = rstd;
  static_cast<T*>(p.scale)[i] = scale;
  static_cast<T*>(p.bias)[i] = static_cast<T>(get(p.beta, i, 0) - double{m} * double{scale});
}

}  // namespace rnk::cuda
