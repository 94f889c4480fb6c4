// conv_fwd, conv_fwd_stats: y = act(out_scale * conv(in_act(in_scale * x + in_bias), w) + out_bias
// + residual), or y = conv(...) and the statistics of y as [3, K].
#include "../cpu/conv_fwd.h"

#include "../cpu/conv_serves.h"
#include "backend.h"
#include "conv_aten.h"

namespace rnk {
namespace {

// What both ops hand to the kernels; outputs and epilogue are still missing.
std::optional<ConvFwdParams> own_params(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                                        const ConvGeometry& conv) {
  if (!is_own_layout(x, w, conv_format(x, w))) return std::nullopt;
  const ConvShape shape = conv_shape(sizes_of(x), w, conv);
  if (!cpu::conv_serves(shape)) return std::nullopt;
  ConvFwdParams params{};
  params.x = floats(x);
  params.w = floats(w);
  params.w_strides = filter_strides(w);
  params.in = prologue_params(in, x);
  params.shape = shape;
  return params;
}

Tensor output(const Tensor& x, const ConvShape& s) {
  return empty_in(x, {s.n, s.k, s.p, s.q}, MemoryFormat::ChannelsLast);
}

Tensor conv_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& in_scale,
                const OptionalTensor& in_bias, int64_t in_act, double in_slope,
                const OptionalTensor& out_scale, const OptionalTensor& out_bias,
                const OptionalTensor& residual, int64_t out_act, double out_slope,
                const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups,
                bool /*tf32*/) {
  const PrologueArgs in{in_scale, in_bias, in_act, in_slope};
  const EpilogueArgs out{out_scale, out_bias, residual, out_act, out_slope};
  const ConvGeometry conv{stride, padding, dilation, groups};
  std::optional<ConvFwdParams> params = own_params(x, w, in, conv);
  if (!params) return aten_conv_fwd(x, w, in, out, conv);
  const Tensor y = output(x, params->shape);
  check_vector(out_scale, y.size(1), ScalarType::Float, y, "out_scale");
  check_vector(out_bias, y.size(1), ScalarType::Float, y, "out_bias");
  if (residual.has_value()) check_same(*residual, y, "residual");
  params->scale = floats(out_scale);
  params->bias = floats(out_bias);
  params->residual = floats(residual);
  params->act = act_of(out_act);
  params->slope = static_cast<float>(out_slope);
  params->y = static_cast<float*>(device_ptr(y));
  const DeviceScope scope(x);
  launch::conv_fwd(*params, scope.context());
  return y;
}

std::tuple<Tensor, Tensor> conv_fwd_stats(const Tensor& x, const Tensor& w,
                                          const OptionalTensor& in_scale,
                                          const OptionalTensor& in_bias, int64_t in_act,
                                          double in_slope, const Ints& stride, const Ints& padding,
                                          const Ints& dilation, int64_t groups, bool /*tf32*/) {
  const PrologueArgs in{in_scale, in_bias, in_act, in_slope};
  const ConvGeometry conv{stride, padding, dilation, groups};
  std::optional<ConvFwdParams> params = own_params(x, w, in, conv);
  if (!params) return aten_conv_fwd_stats(x, w, in, conv);
  const Tensor y = output(x, params->shape);
  const Tensor stats = empty_on(y, {3, y.size(1)}, ScalarType::Float);
  params->y = static_cast<float*>(device_ptr(y));
  params->stats = static_cast<float*>(device_ptr(stats));
  const DeviceScope scope(x);
  launch::conv_fwd(*params, scope.context());
  return {y, stats};
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_fwd)
RNK_REGISTER(conv_fwd_stats)
