// The forward convolutions on the CPU: our fp32 kernels where they serve, else torch's convolution.
#include "../../cpu/conv_fwd.h"

#include "../../cpu/conv_serves.h"
#include "../backend.h"
#include "../conv_aten.h"
#include "../conv_run.h"
#include "conv_own.h"
#include "filter_cache.h"

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
  params.kernel = cpu::conv_kernel(shape);
  return params;
}

Tensor output(const Tensor& x, const ConvShape& s) {
  return empty_in(x, {s.n, s.k, s.p, s.q}, MemoryFormat::ChannelsLast);
}

}  // namespace

Tensor run_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                    const EpilogueArgs& out, const ConvGeometry& conv, bool /*tf32*/) {
  std::optional<ConvFwdParams> params = own_params(x, w, in, conv);
  if (!params) return aten_conv_fwd(x, w, in, out, conv);
  const Tensor y = output(x, params->shape);
  check_epilogue(out, y);
  params->scale = floats(out.scale);
  params->bias = floats(out.bias);
  params->residual = floats(out.residual);
  params->act = act_of(out.act);
  params->slope = static_cast<float>(out.slope);
  params->y = static_cast<float*>(device_ptr(y));
  const DeviceScope scope(x);
  const std::shared_ptr<const float> packed = kept_filter(w, *params, scope.context());
  params->packed = packed.get();
  params->threads = thread_count();
  launch::conv_fwd(*params, scope.context());
  return y;
}

std::tuple<Tensor, Tensor> run_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                              const PrologueArgs& in, const ConvGeometry& conv,
                                              bool /*tf32*/) {
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

}  // namespace rnk
