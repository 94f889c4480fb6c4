// The forward convolutions on the CPU: our fp32 and bf16 kernels where they serve, else torch's
// convolution.
#include "../../cpu/conv_fwd.h"

#include "../backend.h"
#include "../conv_aten.h"
#include "../conv_run.h"
#include "conv_own.h"
#include "filter_cache.h"

namespace rnk {
namespace {

using cpu::BFloat16;

// What both ops hand to the kernels; outputs and epilogue are still missing.
template <typename Element>
std::optional<ConvFwdParamsOf<Element>> own_params(const Tensor& x, const Tensor& w,
                                                   const PrologueArgs& in,
                                                   const ConvGeometry& conv) {
  if (!is_own_layout<Element>(x, w, conv_format(x, w))) return std::nullopt;
  const ConvShape shape = conv_shape(sizes_of(x), w, conv);
  if (!cpu::conv_fwd_serves(shape, dtype_of(x, "x"))) return std::nullopt;
  ConvFwdParamsOf<Element> params{};
  params.x = elements<Element>(x);
  params.w = elements<Element>(w);
  params.w_strides = filter_strides(w);
  params.in = prologue_params(in, x);
  params.shape = shape;
  params.kernel = cpu::conv_kernel(shape);
  return params;
}

Tensor output(const Tensor& x, const ConvShape& s) {
  return empty_in(x, {s.n, s.k, s.p, s.q}, MemoryFormat::ChannelsLast);
}

template <typename Element>
std::optional<Tensor> own_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                                   const EpilogueArgs& out, const ConvGeometry& conv) {
  std::optional<ConvFwdParamsOf<Element>> params = own_params<Element>(x, w, in, conv);
  if (!params) return std::nullopt;
  const Tensor y = output(x, params->shape);
  check_epilogue(out, y);
  params->scale = floats(out.scale);
  params->bias = floats(out.bias);
  params->residual = elements<Element>(out.residual);
  params->act = act_of(out.act);
  params->slope = static_cast<float>(out.slope);
  params->y = static_cast<Element*>(device_ptr(y));
  const DeviceScope scope(x);
  std::shared_ptr<const float> packed;
  if constexpr (std::is_same_v<Element, float>) {
    packed = kept_filter(w, *params, scope.context());
    params->packed = packed.get();
    params->threads = thread_count();
  }
  launch::conv_fwd(*params, scope.context());
  return y;
}

template <typename Element>
std::optional<std::tuple<Tensor, Tensor>> own_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                                             const PrologueArgs& in,
                                                             const ConvGeometry& conv) {
  std::optional<ConvFwdParamsOf<Element>> params = own_params<Element>(x, w, in, conv);
  if (!params) return std::nullopt;
  const Tensor y = output(x, params->shape);
  const Tensor stats = empty_on(y, {3, y.size(1)}, ScalarType::Float);
  params->y = static_cast<Element*>(device_ptr(y));
  params->stats = static_cast<float*>(device_ptr(stats));
  const DeviceScope scope(x);
  launch::conv_fwd(*params, scope.context());
  return std::make_tuple(y, stats);
}

}  // namespace

Tensor run_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                    const EpilogueArgs& out, const ConvGeometry& conv, bool /*tf32*/) {
  if (const auto y = own_conv_fwd<float>(x, w, in, out, conv)) return *y;
  if (const auto y = own_conv_fwd<BFloat16>(x, w, in, out, conv)) return *y;
  return aten_conv_fwd(x, w, in, out, conv);
}

std::tuple<Tensor, Tensor> run_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                              const PrologueArgs& in, const ConvGeometry& conv,
                                              bool /*tf32*/) {
  if (const auto own = own_conv_fwd_stats<float>(x, w, in, conv)) return *own;
  if (const auto own = own_conv_fwd_stats<BFloat16>(x, w, in, conv)) return *own;
  return aten_conv_fwd_stats(x, w, in, conv);
}

}  // namespace rnk
