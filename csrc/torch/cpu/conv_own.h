// What our own CPU convolutions read: fp32 in channels_last.
#pragma once

#include "../../cpu/conv_params.h"
#include "../conv_args.h"

namespace rnk {

// Whether our kernels can read these tensors.
inline bool is_own_layout(const Tensor& activation, const Tensor& w, MemoryFormat format) {
  return activation.scalar_type() == ScalarType::Float && w.scalar_type() == ScalarType::Float &&
         activation.dim() == 4 && w.dim() == 4 && format == MemoryFormat::ChannelsLast &&
         is_channels_last(activation);
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
