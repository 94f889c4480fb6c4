// bn_act_fwd, bn_act_fwd_mask: z = act(scale * y + bias [+ residual | + scale2 * y2 + bias2]).
#include "backend.h"
#include "ops.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_act_fwd.h"
#else
#include "../cpu/bn_act_fwd.h"
#endif

namespace rnk {
namespace {

Tensor run(const Tensor& y, const Tensor& scale, const Tensor& bias, const OptionalTensor& residual,
           const OptionalTensor& scale2, const OptionalTensor& bias2, int64_t act, double slope,
           const OptionalTensor& mask) {
  const ActivationView view = activation_view(y, "y");
  const ScalarType vector_type = stats_type(y);
  check_vector(scale, view.channels, vector_type, y, "scale");
  check_vector(bias, view.channels, vector_type, y, "bias");
  check_vector(scale2, view.channels, vector_type, y, "scale2");
  check_vector(bias2, view.channels, vector_type, y, "bias2");
  STD_TORCH_CHECK(scale2.has_value() == bias2.has_value(), "scale2 and bias2: give both or none");
  STD_TORCH_CHECK(!scale2.has_value() || residual.has_value(), "scale2: needs residual");
  if (residual.has_value()) check_same(*residual, y, "residual");

  Tensor z = empty_same(y);
  const BnActFwdParams params{device_ptr(y),      device_ptr(scale),
                              device_ptr(bias),   device_ptr(residual),
                              device_ptr(scale2), device_ptr(bias2),
                              device_ptr(z),      static_cast<uint8_t*>(device_ptr(mask)),
                              view.outer,         view.channels,
                              view.inner,         dtype_of(y, "y"),
                              act_of(act),        slope};
  const DeviceScope scope(y);
  launch::bn_act_fwd(params, scope.context());
  scope.check_launch("bn_act_fwd");
  return z;
}

}  // namespace

Tensor bn_act_fwd(const Tensor& y, const Tensor& scale, const Tensor& bias,
                  const OptionalTensor& residual, const OptionalTensor& scale2,
                  const OptionalTensor& bias2, int64_t act, double slope) {
  return run(y, scale, bias, residual, scale2, bias2, act, slope, std::nullopt);
}

std::tuple<Tensor, Tensor> bn_act_fwd_mask(const Tensor& y, const Tensor& scale, const Tensor& bias,
                                           const OptionalTensor& residual,
                                           const OptionalTensor& scale2,
                                           const OptionalTensor& bias2, int64_t act, double slope) {
  const Tensor mask = empty_on(y, {(y.numel() + 7) / 8}, ScalarType::Byte);
  Tensor z = run(y, scale, bias, residual, scale2, bias2, act, slope, mask);
  return {z, mask};
}

}  // namespace rnk

RNK_REGISTER(bn_act_fwd)
RNK_REGISTER(bn_act_fwd_mask)
