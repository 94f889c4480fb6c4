// Arguments of the convolution ops in bundles, and the shapes that our own CPU kernels serve.
#pragma once

#include "../common/conv_params.h"
#include "tensor.h"

namespace rnk {

using torch::headeronly::MemoryFormat;

// Geometry of a convolution; each list has two values, heights first.
struct ConvGeometry {
  const Ints &stride, &padding, &dilation;
  int64_t groups;
};

// act(scale * x + bias) in front of the convolution, or x itself.
struct PrologueArgs {
  const OptionalTensor &scale, &bias;
  int64_t act;
  double slope;
};

// act(scale * y + bias + residual) behind it, each part optional.
struct EpilogueArgs {
  const OptionalTensor &scale, &bias, &residual;
  int64_t act;
  double slope;

  bool plain() const {
    return !scale.has_value() && !residual.has_value() && act_of(act) == Act::kIdentity;
  }
};

// The batch norm in front of the convolution whose input gradient is wanted.
struct PreviousBn {
  const Tensor &y, &mean, &rstd, &scale, &bias;
  const OptionalTensor& mask;
  int64_t act;
  double slope;
};

// The one memory format t is dense in; nothing where it fits both (C == 1, or H == W == 1) or none.
inline std::optional<MemoryFormat> strict_format(const Tensor& t) {
  const bool contiguous = is_dense(t, {3, 2, 1, 0}), channels_last = is_channels_last(t);
  if (contiguous == channels_last) return std::nullopt;
  return contiguous ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
}

// Format of a convolution's output: x's; where x fits both, w's; where that does too, contiguous.
inline MemoryFormat conv_format(const Tensor& x, const Tensor& w) {
  return strict_format(x).value_or(strict_format(w).value_or(MemoryFormat::Contiguous));
}

inline Tensor empty_in(const Tensor& like, const Ints& sizes, MemoryFormat format) {
  return torch::stable::empty({sizes.data(), sizes.size()}, like.scalar_type(), std::nullopt,
                              like.device(), std::nullopt, format);
}

// The shape of a convolution of an input of `size` [N, C, H, W]; checks that w fits it.
inline ConvShape conv_shape(const Ints& size, const Tensor& w, const ConvGeometry& conv) {
  STD_TORCH_CHECK(size.size() == 4 && w.dim() == 4, "x and w: expected 4 dimensions");
  for (const Ints* pair : {&conv.stride, &conv.padding, &conv.dilation}) {
    STD_TORCH_CHECK(pair->size() == 2, "stride, padding, dilation: expected two values");
  }
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(conv.stride[i] > 0 && conv.dilation[i] > 0 && conv.padding[i] >= 0,
                    "stride and dilation must be positive, padding not negative");
  }
  STD_TORCH_CHECK(
      conv.groups > 0 && w.size(0) % conv.groups == 0 && w.size(1) * conv.groups == size[1],
      "w: expected ", size[1], " / groups input channels, got ", w.size(1));
  const auto out = [&](int i) {
    const int64_t reach = conv.dilation[i] * (w.size(2 + i) - 1) + 1;
    const int64_t room = size[2 + i] + 2 * conv.padding[i] - reach;
    return room < 0 ? int64_t{0} : room / conv.stride[i] + 1;
  };
  return {size[0],         size[1],          size[2],          size[3],
          w.size(0),       w.size(2),        w.size(3),        out(0),
          out(1),          conv.stride[0],   conv.stride[1],   conv.padding[0],
          conv.padding[1], conv.dilation[0], conv.dilation[1], conv.groups};
}

inline Ints sizes_of(const Tensor& t) { return {t.sizes().begin(), t.sizes().end()}; }

inline FilterStrides filter_strides(const Tensor& w) {
  return {w.stride(0), w.stride(1), w.stride(2), w.stride(3)};
}

// Whether our kernels can read these tensors: fp32 on the CPU, activations in channels_last.
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
  STD_TORCH_CHECK(in.bias.has_value(), "in_scale and in_bias: give both or none");
  check_vector(in.scale, x.size(1), ScalarType::Float, x, "in_scale");
  check_vector(in.bias, x.size(1), ScalarType::Float, x, "in_bias");
  return {floats(in.scale), floats(in.bias), act_of(in.act), static_cast<float>(in.slope)};
}

}  // namespace rnk
