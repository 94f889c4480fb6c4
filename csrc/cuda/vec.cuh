// Vectors of neighbouring elements: 16-byte loads and stores, conversion to the compute type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace rnk::cuda {

constexpr int kVec = 8;

// Type that arithmetic on an element is done in: fp32, or fp64 for fp64.
template <typename Element>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <typename Element>
using Compute = typename ComputeOf<Element>::type;

__device__ inline float to_compute(float v) { return v; }
__device__ inline double to_compute(double v) { return v; }
__device__ inline float to_compute(__half v) { return __half2float(v); }
__device__ inline float to_compute(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename Element>
__device__ inline Element from_compute(Compute<Element> v);
template <>
__device__ inline float from_compute<float>(float v) {
  return v;
}
template <>
__device__ inline double from_compute<double>(double v) {
  return v;
}
template <>
__device__ inline __half from_compute<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline __nv_bfloat16 from_compute<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// kCount elements at p, aligned to min(16 bytes, kCount elements); one element, or whole 16-byte
// accesses. Only for memory that no thread of the launch writes.
template <typename Element, int kCount>
__device__ inline void load_vec(Compute<Element> (&out)[kCount], const Element* p) {
  if constexpr (kCount == 1) {
    out[0] = to_compute(__ldg(p));
    return;
  }
  constexpr int kPerAccess = 16 / sizeof(Element);
#pragma unroll
  for (int i = 0; i < kCount / kPerAccess; ++i) {
    const int4 bits = __ldg(reinterpret_cast<const int4*>(p) + i);
    const Element* elements = reinterpret_cast<const Element*>(&bits);
#pragma unroll
    for (int j = 0; j < kPerAccess; ++j) out[i * kPerAccess + j] = to_compute(elements[j]);
  }
}

template <typename Element, int kCount>
__device__ inline void store_vec(Element* p, const Compute<Element> (&in)[kCount]) {
  if constexpr (kCount == 1) {
    *p = from_compute<Element>(in[0]);
    return;
  }
  constexpr int kPerAccess = 16 / sizeof(Element);
#pragma unroll
  for (int i = 0; i < kCount / kPerAccess; ++i) {
    int4 bits;
    Element* elements = reinterpret_cast<Element*>(&bits);
#pragma unroll
    for (int j = 0; j < kPerAccess; ++j) {
      elements[j] = from_compute<Element>(in[i * kPerAccess + j]);
    }
    reinterpret_cast<int4*>(p)[i] = bits;
  }
}

}  // namespace rnk::cuda
