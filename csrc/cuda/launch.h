// What every launcher needs to know: the device's size, alignment, the element type of a DType.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "../common/dtype.h"

namespace rnk::cuda {

__host__ __device__ inline bool is_aligned(const void* p, int bytes = 16) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

inline int multiprocessors() {
  int device = 0, count = 1;
  if (cudaGetDevice(&device) == cudaSuccess) {
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  }
  return count;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls f with a value of the element type.
template <typename F>
void with_element(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(float());
    case DType::kFloat64:
      return f(double());
    case DType::kFloat16:
      return f(__half());
    case DType::kBFloat16:
      return f(__nv_bfloat16());
  }
}

}  // namespace rnk::cuda
