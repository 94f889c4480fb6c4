// Tensors as the CUDA convolutions take them: activations in NHWC memory, the filter in their
// dtype.
#pragma once

#include "../../cuda/conv_params.h"
#include "../conv_args.h"

namespace rnk {

// conv_shape(), where the kernels' 32-bit positions in images and filters suffice.
inline ConvShape cuda_shape(const Ints& size, const Tensor& w, const ConvGeometry& conv) {
  constexpr int64_t kLimit = int64_t{1} << 30;
  const ConvShape s = conv_shape(size, w, conv);
  for (int64_t extent : {s.c, s.k, s.h + 2 * s.padding_h, s.w + 2 * s.padding_w, s.r * s.dilation_h,
                         s.s * s.dilation_w, s.stride_h, s.stride_w}) {
    STD_TORCH_CHECK(extent < kLimit, "a channel count, padded image, filter or stride of ", extent,
                    " is too large");
  }
  STD_TORCH_CHECK(w.numel() < kLimit, "w: expected fewer than 2^30 elements, got ", w.numel());
  return s;
}

// t itself where its memory is NHWC, else a copy.
inline Tensor nhwc(const Tensor& t) {
  return is_channels_last(t) ? t : torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

inline OptionalTensor nhwc(const OptionalTensor& t) {
  return t.has_value() ? OptionalTensor(nhwc(*t)) : std::nullopt;
}

// w in the dtype of the activation, in any strides.
inline Tensor filter_for(const Tensor& activation, const Tensor& w) {
  STD_TORCH_CHECK(w.device() == activation.device(), "w: device differs");
  dtype_of(w, "w");
  const ScalarType type = activation.scalar_type();
  return w.scalar_type() == type ? w : torch::stable::to(w, type);
}

// An output that the op returns in `format` and a kernel writes in NHWC.
class NhwcOutput {
 public:
  NhwcOutput(const Tensor& like, const Ints& sizes, MemoryFormat format)
      : result_(empty_in(like, sizes, format)),
        written_(is_channels_last(result_) ? result_
                                           : empty_in(like, sizes, MemoryFormat::ChannelsLast)) {}

  const Tensor& result() const { return result_; }    // not yet filled: for checks
  const Tensor& written() const { return written_; }  // by the kernel

  Tensor finish() const {
    Tensor out = result_;
    if (!is_channels_last(out)) torch::stable::copy_(out, written_);
    return out;
  }

 private:
  Tensor result_, written_;
};

// Uninitialised memory for a launcher, or null where it wants none.
inline OptionalTensor workspace_for(const Tensor& like, int64_t bytes) {
  return bytes > 0 ? OptionalTensor(empty_on(like, {bytes}, ScalarType::Byte)) : std::nullopt;
}

inline cuda::Prologue prologue_params(const PrologueArgs& in, const Tensor& x) {
  if (!in.scale.has_value()) return {nullptr, nullptr, Act::kIdentity, 0};
  check_prologue(in, x);
  return {device_ptr(in.scale), device_ptr(in.bias), act_of(in.act), in.slope};
}

}  // namespace rnk
