// bn_bwd_apply: dy = A * g' + B * (y - mean) + C, g' = g or g * act'(scale * y + bias).
#include "backend.h"
#include "conv_run.h"
#include "ops.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_bwd_apply.h"
#else
#include "../cpu/bn_bwd_apply.h"
#endif

namespace rnk {

Tensor bn_bwd_apply(const Tensor& g, const Tensor& y, const Tensor& mean, const Tensor& abc,
                    const OptionalTensor& scale, const OptionalTensor& bias, int64_t act,
                    double slope) {
  const ActivationView view = activation_view(y, "y");
  check_same(g, y, "g");
  const ScalarType type = stats_type(y);
  check_vector(mean, view.channels, type, y, "mean");
  check_vector(abc, 3 * view.channels, type, y, "abc");
  check_vector(scale, view.channels, type, y, "scale");
  check_vector(bias, view.channels, type, y, "bias");
  STD_TORCH_CHECK(scale.has_value() == bias.has_value(), "scale and bias: give both or none");

  Tensor dy = empty_same(y);
  const BnBwdApplyParams params{device_ptr(g),
                                device_ptr(y),
                                device_ptr(mean),
                                device_ptr(abc),
                                device_ptr(scale),
                                device_ptr(bias),
                                device_ptr(dy),
                                view.outer,
                                view.channels,
                                view.inner,
                                dtype_of(y, "y"),
                                act_of(act),
                                slope};
  const DeviceScope scope(y);
  launch::bn_bwd_apply(params, scope.context());
  scope.check_launch("bn_bwd_apply");
  return dy;
}

Tensor apply_bn_bwd(const NextBn& next) {
  const auto identity = static_cast<int64_t>(Act::kIdentity);
  return bn_bwd_apply(next.g, next.y, next.mean, next.abc, {}, {}, identity, 0);
}

}  // namespace rnk

RNK_REGISTER(bn_bwd_apply)
