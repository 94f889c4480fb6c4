// The input gradients on the CPU: our fp32 and bf16 kernels where they serve, else torch's
// convolution.
#include "../../cpu/conv_dgrad.h"

#include "../backend.h"
#include "../conv_aten.h"
#include "../conv_run.h"
#include "conv_own.h"

namespace rnk {
namespace {

using cpu::BFloat16;

// What both ops hand to the kernels; the output is still missing.
template <typename Element>
std::optional<ConvDgradParamsOf<Element>> own_params(const Tensor& dy, const Tensor& w,
                                                     const OptionalTensor& branch,
                                                     const Ints& input_size,
                                                     const ConvGeometry& conv,
                                                     MemoryFormat format) {
  if (!is_own_layout<Element>(dy, w, format)) return std::nullopt;
  const ConvShape shape = conv_shape(input_size, w, conv);
  if (!cpu::conv_dgrad_serves(shape, dtype_of(dy, "dy"))) return std::nullopt;
  check_output_size(dy, shape);
  ConvDgradParamsOf<Element> params{};
  params.dy = elements<Element>(dy);
  params.w = elements<Element>(w);
  params.w_strides = filter_strides(w);
  params.branch = elements<Element>(branch);
  params.shape = shape;
  params.kernel = cpu::conv_kernel(shape);
  return params;
}

template <typename Element>
std::optional<Tensor> own_conv_dgrad(const Tensor& dy, const Tensor& w,
                                     const OptionalTensor& branch, const Ints& input_size,
                                     const ConvGeometry& conv, MemoryFormat format) {
  auto params = own_params<Element>(dy, w, branch, input_size, conv, format);
  if (!params) return std::nullopt;
  const Tensor dx = empty_in(dy, input_size, format);
  if (branch.has_value()) check_same(*branch, dx, "branch");
  params->dx = static_cast<Element*>(device_ptr(dx));
  const DeviceScope scope(dy);
  launch::conv_dgrad(*params, scope.context());
  return dx;
}

template <typename Element>
std::optional<std::tuple<Tensor, Tensor>> own_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                                            const OptionalTensor& branch,
                                                            const PreviousBn& bn,
                                                            const ConvGeometry& conv) {
  if (!is_own_layout<Element>(bn.y, w, conv_format(bn.y, bn.y))) return std::nullopt;
  auto params =
      own_params<Element>(dy, w, branch, sizes_of(bn.y), conv, MemoryFormat::ChannelsLast);
  if (!params) return std::nullopt;
  const Tensor g = empty_same(bn.y);
  const Tensor sums = empty_on(g, {2, g.size(1)}, ScalarType::Float);
  if (branch.has_value()) check_same(*branch, g, "branch");
  check_previous_bn(bn);
  params->y_prev = elements<Element>(bn.y);
  params->mean = floats(bn.mean);
  params->rstd = floats(bn.rstd);
  params->scale = floats(bn.scale);
  params->bias = floats(bn.bias);
  params->mask = static_cast<const uint8_t*>(device_ptr(bn.mask));
  params->act = act_of(bn.act);
  params->slope = static_cast<float>(bn.slope);
  params->dx = static_cast<Element*>(device_ptr(g));
  params->sums = static_cast<float*>(device_ptr(sums));
  const DeviceScope scope(dy);
  launch::conv_dgrad(*params, scope.context());
  return std::make_tuple(g, sums);
}

}  // namespace

Tensor run_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, bool /*tf32*/) {
  const MemoryFormat format = conv_format(dy, w);
  if (const auto dx = own_conv_dgrad<float>(dy, w, branch, input_size, conv, format)) return *dx;
  if (const auto dx = own_conv_dgrad<BFloat16>(dy, w, branch, input_size, conv, format)) return *dx;
  return aten_conv_dgrad(dy, w, branch, input_size, conv, format);
}

std::tuple<Tensor, Tensor> run_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                             const OptionalTensor& branch, const PreviousBn& bn,
                                             const ConvGeometry& conv, bool /*tf32*/) {
  if (const auto own = own_conv_dgrad_bn<float>(dy, w, branch, bn, conv)) return *own;
  if (const auto own = own_conv_dgrad_bn<BFloat16>(dy, w, branch, bn, conv)) return *own;
  return aten_conv_dgrad_bn(dy, w, branch, bn, conv);
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
