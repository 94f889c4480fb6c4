// torch's own convolution through the stable ABI: the declared fallback where no kernel of ours
// convolves.
#pragma once

#include <array>

#include "conv_args.h"

namespace rnk {

// fp32 for fp16: torch's fp16 convolution on the CPU is 6 to 40 times slower.
inline ScalarType conv_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Half ? ScalarType::Float : x.scalar_type();
}

// t in this dtype and format. A 1x1 filter fits both formats, whatever its strides say.
inline Tensor in_format(const Tensor& t, ScalarType type, MemoryFormat format) {
  const bool there =
      format == MemoryFormat::Contiguous ? is_dense(t, {3, 2, 1, 0}) : is_channels_last(t);
  if (there && t.scalar_type() == type) return t;
  const Tensor cast = t.scalar_type() == type ? t : torch::stable::to(t, type);
  return there ? cast : torch::stable::contiguous(cast, format);
}

inline Tensor aten_convolution(const Tensor& x, const Tensor& w, const OptionalTensor& bias,
                               const ConvGeometry& conv) {
  using torch::stable::detail::from;
  const MemoryFormat format = conv_format(x, w);
  const ScalarType type = conv_type(x);
  OptionalTensor cast_bias;
  if (bias.has_value()) cast_bias = torch::stable::to(*bias, type);
  std::array<StableIValue, 9> stack{from(in_format(x, type, format)),
                                    from(in_format(w, type, format)),
                                    from(cast_bias),
                                    from(conv.stride),
                                    from(conv.padding),
                                    from(conv.dilation),
                                    from(false),
                                    from(Ints{0, 0}),
                                    from(conv.groups)};
  RNK_CHECK_STATUS(torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION));
  return in_format(torch::stable::detail::to<Tensor>(stack[0]), x.scalar_type(), format);
}

enum class ConvGradient { kInput, kWeight };

// dx or dw in the dtype torch computes in. x and w tell shapes, and values where they are needed.
inline Tensor aten_convolution_backward(const Tensor& dy, const Tensor& x, const Tensor& w,
                                        const ConvGeometry& conv, MemoryFormat format,
                                        ConvGradient wanted) {
  using torch::stable::detail::from;
  const ScalarType type = conv_type(dy);
  const bool mask[3] = {wanted == ConvGradient::kInput, wanted == ConvGradient::kWeight, false};
  std::array<StableIValue, 11> stack{from(in_format(dy, type, format)),
                                     from(in_format(x, type, format)),
                                     from(in_format(w, type, format)),
                                     from(std::nullopt),
                                     from(conv.stride),
                                     from(conv.padding),
                                     from(conv.dilation),
                                     from(false),
                                     from(Ints{0, 0}),
                                     from(conv.groups),
                                     from(torch::headeronly::HeaderOnlyArrayRef<bool>(mask, 3))};
  RNK_CHECK_STATUS(
      torch_call_dispatcher("aten::convolution_backward", "", stack.data(), TORCH_ABI_VERSION));
  const Tensor dx = torch::stable::detail::to<Tensor>(stack[0]);
  const Tensor dw = torch::stable::detail::to<Tensor>(stack[1]);
  torch::stable::detail::to<Tensor>(stack[2]);
  return wanted == ConvGradient::kInput ? dx : dw;
}

// t with the strides of `like`, which may differ in dimensions of size 1 only.
inline Tensor aten_as_strided(const Tensor& t, const Tensor& like) {
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack{from(t), from(like.sizes()), from(like.strides()),
                                    from(std::nullopt)};
  RNK_CHECK_STATUS(torch_call_dispatcher("aten::as_strided", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace rnk
