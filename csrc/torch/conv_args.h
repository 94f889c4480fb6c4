// Arguments of the convolution ops in bundles, and the checks that their backends share.
#pragma once

#include "../common/conv_params.h"
#include "tensor.h"

namespace rnk {

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

// The batch norm behind it, whose bn_bwd_apply makes dy of g.
struct NextBn {
  const Tensor &g, &y, &mean, &abc;
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
  return empty_tensor(like, sizes, like.scalar_type(), format);
}

inline Ints sizes_of(const Tensor& t) { return {t.sizes().begin(), t.sizes().end()}; }

// The shape of a convolution of an input [N, C, H, W] with a filter [K, C / groups, R, S] of these
// sizes; checks that they fit.
inline ConvShape conv_shape(const Ints& size, const Ints& filter, const ConvGeometry& conv) {
  STD_TORCH_CHECK(size.size() == 4 && filter.size() == 4, "x and w: expected 4 dimensions");
  for (const Ints* pair : {&conv.stride, &conv.padding, &conv.dilation}) {
    STD_TORCH_CHECK(pair->size() == 2, "stride, padding, dilation: expected two values");
  }
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(conv.stride[i] > 0 && conv.dilation[i] > 0 && conv.padding[i] >= 0,
                    "stride and dilation must be positive, padding not negative");
  }
  STD_TORCH_CHECK(
      conv.groups > 0 && filter[0] % conv.groups == 0 && filter[1] * conv.groups == size[1],
      "w: expected ", size[1], " / groups input channels, got ", filter[1]);
  const auto out = [&](int i) {
    const int64_t reach = conv.dilation[i] * (filter[2 + i] - 1) + 1;
    const int64_t room = size[2 + i] + 2 * conv.padding[i] - reach;
    return room < 0 ? int64_t{0} : room / conv.stride[i] + 1;
  };
  return {size[0],         size[1],          size[2],          size[3],
          filter[0],       filter[2],        filter[3],        out(0),
          out(1),          conv.stride[0],   conv.stride[1],   conv.padding[0],
          conv.padding[1], conv.dilation[0], conv.dilation[1], conv.groups};
}

inline ConvShape conv_shape(const Ints& size, const Tensor& w, const ConvGeometry& conv) {
  return conv_shape(size, sizes_of(w), conv);
}

inline FilterStrides filter_strides(const Tensor& w) {
  return {w.stride(0), w.stride(1), w.stride(2), w.stride(3)};
}

inline void check_output_size(const Tensor& dy, const ConvShape& s) {
  STD_TORCH_CHECK(dy.dim() == 4 && dy.size(0) == s.n && dy.size(1) == s.k && dy.size(2) == s.p &&
                      dy.size(3) == s.q,
                  "dy: not the size of the convolution's output");
}

// in.scale is there.
inline void check_prologue(const PrologueArgs& in, const Tensor& x) {
  STD_TORCH_CHECK(in.bias.has_value(), "in_scale and in_bias: give both or none");
  check_vector(in.scale, x.size(1), stats_type(x), x, "in_scale");
  check_vector(in.bias, x.size(1), stats_type(x), x, "in_bias");
}

inline void check_epilogue(const EpilogueArgs& out, const Tensor& y) {
  check_vector(out.scale, y.size(1), stats_type(y), y, "out_scale");
  check_vector(out.bias, y.size(1), stats_type(y), y, "out_bias");
  if (out.residual.has_value()) check_same(*out.residual, y, "residual");
}

inline void check_previous_bn(const PreviousBn& bn) {
  for (const Tensor* vector : {&bn.mean, &bn.rstd, &bn.scale, &bn.bias}) {
    check_vector(*vector, bn.y.size(1), stats_type(bn.y), bn.y, "mean, rstd, scale, bias");
  }
  check_mask(bn.mask, bn.y);
}

}  // namespace rnk
