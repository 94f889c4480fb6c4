// Tensor checks and access on the stable ABI of libtorch: layout, dtype, device_ptr, outputs.
// Checks here are those that memory safety needs; resnet_kernels/ops/checks.py explains misuse to
// users.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../common/dtype.h"
#if defined(RNK_BACKEND_EMULATED)
#include "../emulator/register_range.h"
#endif
#if defined(RNK_BACKEND_CPU)
#include "cpu/pooled.h"
#endif

// Raises if a call of the stable ABI failed; newer headers have the form that tells why.
#if defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define RNK_CHECK_STATUS(call) STABLE_TORCH_ERROR_CODE_CHECK(call)
#else
#define RNK_CHECK_STATUS(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace rnk {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

// An activation [N, C, H, W] seen as [outer, channels, inner], the last index fastest:
// channels_last is [N*H*W, C, 1], contiguous is [N, C, H*W].
struct ActivationView {
  int64_t outer;
  int64_t channels;
  int64_t inner;
};

inline DType dtype_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      STD_TORCH_CHECK(false, name, ": expected float32, float64, float16 or bfloat16");
  }
}

inline Act act_of(int64_t act) {
  STD_TORCH_CHECK(act >= 0 && act <= static_cast<int>(Act::kLeakyRelu), "act: unknown value ", act);
  return static_cast<Act>(act);
}

// Whether t [N, C, H, W] is dense with the given order of dimensions, fastest first.
inline bool is_dense(const Tensor& t, const int (&order)[4]) {
  int64_t expected = 1;
  for (int d : order) {
    if (t.size(d) != 1 && t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

inline bool is_channels_last(const Tensor& t) { return is_dense(t, {1, 3, 2, 0}); }

inline ActivationView activation_view(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.dim() == 4, name, ": expected 4 dimensions [N, C, H, W], got ", t.dim());
  const int64_t n = t.size(0), c = t.size(1), hw = t.size(2) * t.size(3);
  if (t.numel() == 0 || is_channels_last(t)) return {n * hw, c, 1};
  STD_TORCH_CHECK(is_dense(t, {3, 2, 1, 0}), name,
                  ": expected dense channels_last or contiguous memory");
  return {n, c, hw};
}

// t must have the shape and memory layout of `like`.
inline void check_layout(const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(t.dim() == 4 && like.dim() == 4, name, ": expected 4 dimensions");
  for (int d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(t.size(d) == like.size(d), name, ": expected size ", like.size(d),
                    " in dimension ", d, ", got ", t.size(d));
    STD_TORCH_CHECK(t.size(d) == 1 || t.numel() == 0 || t.stride(d) == like.stride(d), name,
                    ": memory layout differs");
  }
}

// t must be usable wherever `like` is: same shape, dtype, device and memory layout.
inline void check_same(const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == like.scalar_type(), name, ": dtype differs");
  STD_TORCH_CHECK(t.device() == like.device(), name, ": device differs");
  check_layout(t, like, name);
}

// Dtype of statistics and per-channel vectors that go with an activation dtype.
inline ScalarType stats_type(const Tensor& activation) {
  return activation.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_vector(const Tensor& t, int64_t channels, ScalarType type, const Tensor& like,
                         const char* name) {
  STD_TORCH_CHECK(t.numel() == channels && t.is_contiguous(), name, ": expected ", channels,
                  " contiguous values, got ", t.numel());
  STD_TORCH_CHECK(t.scalar_type() == type, name, ": expected the dtype of the statistics");
  STD_TORCH_CHECK(t.device() == like.device(), name, ": device differs");
}

inline void check_vector(const OptionalTensor& t, int64_t channels, ScalarType type,
                         const Tensor& like, const char* name) {
  if (t.has_value()) check_vector(*t, channels, type, like, name);
}

// One bit for each element of `like`, as bn_act_fwd_mask writes them.
inline void check_mask(const OptionalTensor& mask, const Tensor& like) {
  if (!mask.has_value()) return;
  STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Byte && mask->is_contiguous() &&
                      mask->numel() == (like.numel() + 7) / 8,
                  "mask: expected one contiguous bit per element, got ", mask->numel(), " bytes");
  STD_TORCH_CHECK(mask->device() == like.device(), "mask: device differs");
}

// The only way a tensor's memory reaches a kernel.
#if defined(RNK_BACKEND_EMULATED)
// The emulated launch may touch the tensor's storage and nothing else.
inline void* device_ptr(const Tensor& t) {
  int64_t bytes = 0, offset = 0;
  RNK_CHECK_STATUS(aoti_torch_get_storage_size(t.get(), &bytes));
  RNK_CHECK_STATUS(aoti_torch_get_storage_offset(t.get(), &offset));
  auto* data = static_cast<char*>(t.data_ptr());
  if (data) emu::register_range(data - offset * t.element_size(), bytes, "a tensor");
  return data;
}
#else
inline void* device_ptr(const Tensor& t) { return t.data_ptr(); }
#endif

inline void* device_ptr(const OptionalTensor& t) {
  return t.has_value() ? device_ptr(*t) : nullptr;
}

// Uninitialised, on the device of `like`.
inline Tensor empty_tensor(const Tensor& like, const Ints& sizes, ScalarType type,
                           MemoryFormat format) {
#if defined(RNK_BACKEND_CPU)
  if (auto pooled = pooled_empty(sizes, type, format)) return std::move(*pooled);
#endif
  return torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, like.device(),
                              std::nullopt, format);
}

// Uninitialised [sizes...] on the device of `like`.
inline Tensor empty_on(const Tensor& like, const Ints& sizes, ScalarType type) {
  return empty_tensor(like, sizes, type, MemoryFormat::Contiguous);
}

// A workspace of that many bytes on the device of `like`; none where none are needed.
inline OptionalTensor empty_bytes(const Tensor& like, int64_t bytes) {
  if (bytes == 0) return std::nullopt;
  return empty_on(like, {bytes}, ScalarType::Byte);
}

// Uninitialised [N, C, H, W] in the memory layout of `like`.
inline Tensor empty_activation(const Tensor& like, const Ints& sizes, ScalarType type) {
  const bool contiguous = is_dense(like, {3, 2, 1, 0});
  return empty_tensor(like, sizes, type,
                      contiguous ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast);
}

// Uninitialised, of the sizes, strides and dtype of t.
inline Tensor empty_same(const Tensor& t) {
#if defined(RNK_BACKEND_CPU)
  if (auto pooled = pooled_empty_same(t)) return std::move(*pooled);
#endif
  return torch::stable::empty_like(t);
}

}  // namespace rnk
