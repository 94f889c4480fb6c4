// What our own CPU convolutions read: fp32 or bf16 in channels_last.
#pragma once

#include <type_traits>

#include "../../cpu/conv_params.h"
#include "../../cpu/conv_serves.h"
#include "../conv_args.h"

namespace rnk {

template <typename Element>
constexpr ScalarType kTypeOf =
    std::is_same_v<Element, float> ? ScalarType::Float : ScalarType::BFloat16;

// Whether our kernels for Element can read these tensors.
template <typename Element>
inline bool is_own_layout(const Tensor& activation, const Tensor& w, MemoryFormat format) {
  return activation.scalar_type() == kTypeOf<Element> && w.scalar_type() == kTypeOf<Element> &&
         activation.dim() == 4 && w.dim() == 4 && format == MemoryFormat::ChannelsLast &&
         is_channels_last(activation);
}

template <typename Element>
const Element* elements(const Tensor& t) {
  return static_cast<const Element*>(device_ptr(t));
}
template <typename Element>
const Element* elements(const OptionalTensor& t) {
  return static_cast<const Element*>(device_ptr(t));
}

inline const float* floats(const Tensor& t) { return static_cast<const float*>(device_ptr(t)); }
inline const float* floats(const OptionalTensor& t) {
  return static_cast<const float*>(device_ptr(t));
}

inline ConvPrologue prologue_params(const PrologueArgs& in, const Tensor& x) {
  if (!in.scale.has_value()) return {nullptr, nullptr, Act::kIdentity, 0};
  check_prologue(in, x);
  return {floats(in.scale), floats(in.bias), act_of(in.act), static_cast<float>(in.slope)};
}

}  // namespace rnk
