// The input gradients on the CPU: our fp32 kernels where they serve, else torch's convolution.
#include "../../cpu/conv_dgrad.h"

#include "../../cpu/conv_serves.h"
#include "../backend.h"
#include "../conv_aten.h"
#include "../conv_run.h"
#include "conv_own.h"

namespace rnk {
namespace {

// What both ops hand to the kernels; the output is still missing.
std::optional<ConvDgradParams> own_params(const Tensor& dy, const Tensor& w,
                                          const OptionalTensor& branch, const Ints& input_size,
                                          const ConvGeometry& conv, MemoryFormat format) {
  if (!is_own_layout(dy, w, format)) return std::nullopt;
  const ConvShape shape = conv_shape(input_size, w, conv);
  if (!cpu::conv_dgrad_serves(shape)) return std::nullopt;
  check_output_size(dy, shape);
  ConvDgradParams params{};
  params.dy = floats(dy);
  params.w = floats(w);
  params.w_strides = filter_strides(w);
  params.branch = floats(branch);
  params.shape = shape;
  params.kernel = cpu::conv_kernel(shape);
  return params;
}

}  // namespace

Tensor run_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, bool /*tf32*/) {
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

std::tuple<Tensor, Tensor> run_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                             const OptionalTensor& branch, const PreviousBn& bn,
                                             const ConvGeometry& conv, bool /*tf32*/) {
  std::optional<ConvDgradParams> params;
  if (is_own_layout(bn.y, w, conv_format(bn.y, bn.y))) {
    params = own_params(dy, w, branch, sizes_of(bn.y), conv, MemoryFormat::ChannelsLast);
  }
  if (!params) return aten_conv_dgrad_bn(dy, w, branch, bn, conv);
  const Tensor g = torch::stable::empty_like(bn.y);
  const Tensor sums = empty_on(g, {2, g.size(1)}, ScalarType::Float);
  if (branch.has_value()) check_same(*branch, g, "branch");
  check_previous_bn(bn);
  params->y_prev = floats(bn.y);
  params->mean = floats(bn.mean);
  params->rstd = floats(bn.rstd);
  params->scale = floats(bn.scale);
  params->bias = floats(bn.bias);
  params->mask = static_cast<const uint8_t*>(device_ptr(bn.mask));
  params->act = act_of(bn.act);
  params->slope = static_cast<float>(bn.slope);
  params->dx = static_cast<float*>(device_ptr(g));
  params->sums = static_cast<float*>(device_ptr(sums));
  const DeviceScope scope(dy);
  launch::conv_dgrad(*params, scope.context());
  return {g, sums};
}

// Two passes: the caches of a CPU hold too little of dy between one convolution's tiles.
std::tuple<Tensor, Tensor> run_conv_apply_dgrad(const NextBn& next, const Tensor& w,
                                                const OptionalTensor& branch,
                                                const Ints& input_size, const ConvGeometry& conv,
                                                bool tf32) {
  const Tensor dy = apply_bn_bwd(next);
  return {run_conv_dgrad(dy, w, branch, input_size, conv, tf32), dy};
}

std::tuple<Tensor, Tensor, Tensor> run_conv_apply_dgrad_bn(const NextBn& next, const Tensor& w,
                                                           const OptionalTensor& branch,
                                                           const PreviousBn& bn,
                                                           const ConvGeometry& conv, bool tf32) {
  const Tensor dy = apply_bn_bwd(next);
  return std::tuple_cat(run_conv_dgrad_bn(dy, w, branch, bn, conv, tf32), std::make_tuple(dy));
}

}  // namespace rnk
