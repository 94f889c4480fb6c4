// The convolution ops on the CPU: torch's convolution with our kernels around it (the declared
// fallback). Formulas as in docs/math/convolution.md; rounding as in
// resnet_kernels/reference/conv.py.
#include "../cpu/bn_act_fwd.h"
#include "aten_conv.h"
#include "backend.h"
#include "ops.h"

namespace rnk {
namespace {

// act(scale * x + bias) as a tensor, or x itself without a prologue.
Tensor activated(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& bias,
                 int64_t act, double slope) {
  if (!scale.has_value()) return x;
  STD_TORCH_CHECK(bias.has_value(), "in_scale and in_bias: give both or none");
  return bn_act_fwd(x, *scale, *bias, std::nullopt, std::nullopt, std::nullopt, act, slope);
}

// y = act(scale * y + bias + residual) where it lies: y is a convolution's fresh output.
void epilogue(const Tensor& y, const OptionalTensor& scale, const OptionalTensor& bias,
              const OptionalTensor& residual, int64_t act, double slope) {
  const ActivationView view = activation_view(y, "y");
  const ScalarType type = stats_type(y);
  const auto filled = [&](double value) {
    return torch::stable::full({&view.channels, 1}, value, type, std::nullopt, y.device());
  };
  const Tensor s = scale.has_value() ? *scale : filled(1), b = bias.has_value() ? *bias : filled(0);
  check_vector(s, view.channels, type, y, "out_scale");
  check_vector(b, view.channels, type, y, "out_bias");
  if (residual.has_value()) check_same(*residual, y, "residual");
  const DeviceScope scope(y);
  launch::bn_act_fwd({device_ptr(y), device_ptr(s), device_ptr(b), device_ptr(residual), nullptr,
                      nullptr, device_ptr(y), nullptr, view.outer, view.channels, view.inner,
                      dtype_of(y, "y"), act_of(act), slope},
                     scope.context());
}

Tensor conv_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& in_scale,
                const OptionalTensor& in_bias, int64_t in_act, double in_slope,
                const OptionalTensor& out_scale, const OptionalTensor& out_bias,
                const OptionalTensor& residual, int64_t out_act, double out_slope,
                const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups,
                bool /*tf32*/) {
  const Tensor z = activated(x, in_scale, in_bias, in_act, in_slope);
  const ConvGeometry conv{stride, padding, dilation, groups};
  const bool plain =
      !out_scale.has_value() && !residual.has_value() && act_of(out_act) == Act::kIdentity;
  if (plain) return aten_convolution(z, w, out_bias, conv);
  Tensor y = aten_convolution(z, w, std::nullopt, conv);
  epilogue(y, out_scale, out_bias, residual, out_act, out_slope);
  return y;
}

std::tuple<Tensor, Tensor> conv_fwd_stats(const Tensor& x, const Tensor& w,
                                          const OptionalTensor& in_scale,
                                          const OptionalTensor& in_bias, int64_t in_act,
                                          double in_slope, const Ints& stride, const Ints& padding,
                                          const Ints& dilation, int64_t groups, bool /*tf32*/) {
  const Tensor z = activated(x, in_scale, in_bias, in_act, in_slope);
  Tensor y = aten_convolution(z, w, std::nullopt, {stride, padding, dilation, groups});
  Tensor stats = bn_stats(y);
  return {y, stats};
}

// dx [input_size] in `format`, with the gradient of another branch added.
Tensor input_gradient(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, MemoryFormat format) {
  const Tensor x = torch::stable::empty({input_size.data(), input_size.size()}, conv_type(dy),
                                        std::nullopt, dy.device(), std::nullopt, format);
  const Tensor dx = aten_convolution_backward(dy, x, w, conv, format, ConvGradient::kInput);
  Tensor out = in_format(dx, dy.scalar_type(), format);
  if (branch.has_value()) {
    epilogue(out, std::nullopt, std::nullopt, branch, static_cast<int>(Act::kIdentity), 0);
  }
  return out;
}

Tensor conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                  const Ints& input_size, const Ints& stride, const Ints& padding,
                  const Ints& dilation, int64_t groups, bool /*tf32*/) {
  const ConvGeometry conv{stride, padding, dilation, groups};
  return input_gradient(dy, w, branch, input_size, conv, conv_format(dy, w));
}

std::tuple<Tensor, Tensor> conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                         const OptionalTensor& branch, const Tensor& y_prev,
                                         const Tensor& mean, const Tensor& rstd,
                                         const Tensor& scale, const Tensor& bias,
                                         const OptionalTensor& mask, int64_t act, double slope,
                                         const Ints& stride, const Ints& padding,
                                         const Ints& dilation, int64_t groups, bool /*tf32*/) {
  const ConvGeometry conv{stride, padding, dilation, groups};
  const Ints size(y_prev.sizes().begin(), y_prev.sizes().end());
  const Tensor dz = input_gradient(dy, w, branch, size, conv, conv_format(y_prev, y_prev));
  return bn_act_bwd_reduce_add(dz, y_prev, mean, rstd, scale, bias, std::nullopt, mask, act, slope);
}

Tensor conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w,
                  const OptionalTensor& in_scale, const OptionalTensor& in_bias, int64_t in_act,
                  double in_slope, const Ints& stride, const Ints& padding, const Ints& dilation,
                  int64_t groups, bool /*tf32*/) {
  const Tensor z = activated(x, in_scale, in_bias, in_act, in_slope);
  const Tensor dw = aten_convolution_backward(dy, z, w, {stride, padding, dilation, groups},
                                              conv_format(z, w), ConvGradient::kWeight);
  bool same = dw.scalar_type() == w.scalar_type(), same_strides = true;
  for (int64_t d = 0; d < 4; ++d) {
    const bool equal = dw.stride(d) == w.stride(d);
    same_strides = same_strides && equal;
    same = same && (equal || w.size(d) == 1);
  }
  if (same) return same_strides ? dw : aten_as_strided(dw, w);
  Tensor out = torch::stable::empty_like(w);
  torch::stable::copy_(out, dw);
  return out;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_fwd)
RNK_REGISTER(conv_fwd_stats)
RNK_REGISTER(conv_dgrad)
RNK_REGISTER(conv_dgrad_bn)
RNK_REGISTER(conv_wgrad)
