// conv_dgrad, conv_dgrad_bn: dx = the transposed convolution of dy [+ branch]; with the batch norm
// and activation in front, g = dx * act' and its sums [2, C] in the same pass.
#include "../cpu/conv_dgrad.h"

#include "../cpu/conv_serves.h"
#include "backend.h"
#include "conv_aten.h"

namespace rnk {
namespace {

// What both ops hand to the kernels; the output is still missing.
std::optional<ConvDgradParams> own_params(const Tensor& dy, const Tensor& w,
                                          const OptionalTensor& branch, const Ints& input_size,
                                          const ConvGeometry& conv, MemoryFormat format) {
  if (!is_own_layout(dy, w, format)) return std::nullopt;
  const ConvShape shape = conv_shape(input_size, w, conv);
  if (!cpu::conv_dgrad_serves(shape)) return std::nullopt;
  STD_TORCH_CHECK(dy.size(0) == shape.n && dy.size(1) == shape.k && dy.size(2) == shape.p &&
                      dy.size(3) == shape.q,
                  "dy: not the size of the convolution's output");
  ConvDgradParams params{};
  params.dy = floats(dy);
  params.w = floats(w);
  params.w_strides = filter_strides(w);
  params.branch = floats(branch);
  params.shape = shape;
  return params;
}

Tensor conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                  const Ints& input_size, const Ints& stride, const Ints& padding,
                  const Ints& dilation, int64_t groups, bool /*tf32*/) {
  const ConvGeometry conv{stride, padding, dilation, groups};
  const MemoryFormat format = conv_format(dy, w);
  std::optional<ConvDgradParams> params = own_params(dy, w, branch, input_size, conv, format);
  if (!params) return aten_conv_dgrad(dy, w, branch, input_size, conv, format);
  const Tensor dx = empty_in(dy, input_size, format);
  if (branch.has_value()) check_same(*branch, dx, "branch");
  params->dx = static_cast<float*>(device_ptr(dx));
  const DeviceScope scope(dy);
  launch::conv_dgrad(*params, scope.context());
  return dx;
}

std::tuple<Tensor, Tensor> conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                         const OptionalTensor& branch, const Tensor& y_prev,
                                         const Tensor& mean, const Tensor& rstd,
                                         const Tensor& scale, const Tensor& bias,
                                         const OptionalTensor& mask, int64_t act, double slope,
                                         const Ints& stride, const Ints& padding,
                                         const Ints& dilation, int64_t groups, bool /*tf32*/) {
  const ConvGeometry conv{stride, padding, dilation, groups};
  const PreviousBn bn{y_prev, mean, rstd, scale, bias, mask, act, slope};
  std::optional<ConvDgradParams> params;
  if (is_own_layout(y_prev, w, conv_format(y_prev, y_prev))) {
    params = own_params(dy, w, branch, sizes_of(y_prev), conv, MemoryFormat::ChannelsLast);
  }
  if (!params) return aten_conv_dgrad_bn(dy, w, branch, bn, conv);
  const Tensor g = torch::stable::empty_like(y_prev);
  const Tensor sums = empty_on(g, {2, g.size(1)}, ScalarType::Float);
  if (branch.has_value()) check_same(*branch, g, "branch");
  for (const Tensor* vector : {&mean, &rstd, &scale, &bias}) {
    check_vector(*vector, g.size(1), ScalarType::Float, g, "mean, rstd, scale, bias");
  }
  check_mask(mask, g);
  params->y_prev = floats(y_prev);
  params->mean = floats(mean);
  params->rstd = floats(rstd);
  params->scale = floats(scale);
  params->bias = floats(bias);
  params->mask = static_cast<const uint8_t*>(device_ptr(mask));
  params->act = act_of(act);
  params->slope = static_cast<float>(slope);
  params->dx = static_cast<float*>(device_ptr(g));
  params->sums = static_cast<float*>(device_ptr(sums));
  const DeviceScope scope(dy);
  launch::conv_dgrad(*params, scope.context());
  return {g, sums};
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_dgrad)
RNK_REGISTER(conv_dgrad_bn)
