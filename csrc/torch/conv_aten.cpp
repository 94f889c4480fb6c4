// Torch's convolution with our kernels around it. Formulas as in docs/math/convolution.md; rounding
// as in resnet_kernels/reference/conv.py.
#include "conv_aten.h"

#include <atomic>

#include "../cpu/bn_act_fwd.h"
#include "aten_conv.h"
#include "backend.h"
#include "ops.h"

namespace rnk {
namespace {

// Calls that came here, by op, in the order of kConvOps.
enum ConvOp { kConvFwd, kConvFwdStats, kConvDgrad, kConvDgradBn, kConvWgrad, kConvOps };
std::atomic<int64_t> calls[kConvOps];

std::vector<int64_t> conv_fallback_calls() { return {calls, calls + kConvOps}; }

// act(scale * x + bias) as a tensor, or x itself without a prologue.
Tensor activated(const Tensor& x, const PrologueArgs& in) {
  if (!in.scale.has_value()) return x;
  STD_TORCH_CHECK(in.bias.has_value(), "in_scale and in_bias: give both or none");
  return bn_act_fwd(x, *in.scale, *in.bias, std::nullopt, std::nullopt, std::nullopt, in.act,
                    in.slope);
}

// y = act(scale * y + bias + residual) where it lies: y is a convolution's fresh output.
void apply_epilogue(const Tensor& y, const EpilogueArgs& out) {
  const ActivationView view = activation_view(y, "y");
  const ScalarType type = stats_type(y);
  const auto filled = [&](double value) {
    return torch::stable::full({&view.channels, 1}, value, type, std::nullopt, y.device());
  };
  const Tensor scale = out.scale.has_value() ? *out.scale : filled(1);
  const Tensor bias = out.bias.has_value() ? *out.bias : filled(0);
  check_vector(scale, view.channels, type, y, "out_scale");
  check_vector(bias, view.channels, type, y, "out_bias");
  if (out.residual.has_value()) check_same(*out.residual, y, "residual");
  const DeviceScope scope(y);
  launch::bn_act_fwd({device_ptr(y), device_ptr(scale), device_ptr(bias), device_ptr(out.residual),
                      nullptr, nullptr, device_ptr(y), nullptr, view.outer, view.channels,
                      view.inner, dtype_of(y, "y"), act_of(out.act), out.slope},
                     scope.context());
}

// dx [input_size] in `format`, with the gradient of another branch added.
Tensor input_gradient(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, MemoryFormat format) {
  const Tensor x = torch::stable::empty({input_size.data(), input_size.size()}, conv_type(dy),
                                        std::nullopt, dy.device(), std::nullopt, format);
  const Tensor dx = aten_convolution_backward(dy, x, w, conv, format, ConvGradient::kInput);
  Tensor out = in_format(dx, dy.scalar_type(), format);
  if (branch.has_value()) apply_epilogue(out, {std::nullopt, std::nullopt, branch, 0, 0});
  return out;
}

}  // namespace

Tensor aten_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                     const EpilogueArgs& out, const ConvGeometry& conv) {
  ++calls[kConvFwd];
  const Tensor z = activated(x, in);
  if (out.plain()) return aten_convolution(z, w, out.bias, conv);
  Tensor y = aten_convolution(z, w, std::nullopt, conv);
  apply_epilogue(y, out);
  return y;
}

std::tuple<Tensor, Tensor> aten_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                               const PrologueArgs& in, const ConvGeometry& conv) {
  ++calls[kConvFwdStats];
  Tensor y = aten_convolution(activated(x, in), w, std::nullopt, conv);
  Tensor stats = bn_stats(y);
  return {y, stats};
}

Tensor aten_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                       const Ints& input_size, const ConvGeometry& conv, MemoryFormat format) {
  ++calls[kConvDgrad];
  return input_gradient(dy, w, branch, input_size, conv, format);
}

std::tuple<Tensor, Tensor> aten_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                              const OptionalTensor& branch, const PreviousBn& bn,
                                              const ConvGeometry& conv) {
  ++calls[kConvDgradBn];
  const MemoryFormat format = conv_format(bn.y, bn.y);
  const Tensor dz = input_gradient(dy, w, branch, sizes_of(bn.y), conv, format);
  return bn_act_bwd_reduce_add(dz, bn.y, bn.mean, bn.rstd, bn.scale, bn.bias, std::nullopt, bn.mask,
                               bn.act, bn.slope);
}

Tensor aten_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                       const ConvGeometry& conv) {
  ++calls[kConvWgrad];
  const Tensor z = activated(x, in);
  const Tensor dw =
      aten_convolution_backward(dy, z, w, conv, conv_format(z, w), ConvGradient::kWeight);
  bool same = dw.scalar_type() == w.scalar_type(), same_strides = true;
  for (int64_t d = 0; d < 4; ++d) {
    const bool equal = dw.stride(d) == w.stride(d);
    same_strides = same_strides && equal;
    same = same && (equal || w.size(d) == 1);
  }
  if (same) return same_strides ? dw : aten_as_strided(dw, w);
  Tensor out = empty_same(w);
  torch::stable::copy_(out, dw);
  return out;
}

}  // namespace rnk

STABLE_TORCH_LIBRARY_IMPL(RNK_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("conv_fallback_calls", TORCH_BOX(&rnk::conv_fallback_calls));
}
