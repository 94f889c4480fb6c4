// Optional per-channel vectors of any float dtype, as the kernels take them.
#pragma once

#include "../common/bn_vectors_params.h"
#include "tensor.h"

namespace rnk {

inline void check_any_float(const Tensor& t, int64_t channels, const Tensor& like,
                            const char* name) {
  STD_TORCH_CHECK(t.numel() == channels && t.is_contiguous(), name, ": expected ", channels,
                  " contiguous values, got ", t.numel());
  STD_TORCH_CHECK(t.device() == like.device(), name, ": device differs");
}

inline VectorIn vector_in(const OptionalTensor& t, int64_t channels, const Tensor& like,
                          const char* name) {
  if (!t.has_value()) return {nullptr, DType::kFloat32};
  check_any_float(*t, channels, like, name);
  return {device_ptr(*t), dtype_of(*t, name)};
}

inline VectorInOut vector_in_out(const OptionalTensor& t, int64_t channels, const Tensor& like,
                                 const char* name) {
  if (!t.has_value()) return {nullptr, DType::kFloat32};
  check_any_float(*t, channels, like, name);
  return {device_ptr(*t), dtype_of(*t, name)};
}

inline DType vector_dtype(ScalarType type) {
  return type == ScalarType::Double ? DType::kFloat64 : DType::kFloat32;
}

}  // namespace rnk
