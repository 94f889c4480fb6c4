// bn_act_bwd_reduce, _add, _dual: g = dz * act'(t) and the sums of g and g * xhat as [2, C].
#include "backend.h"
#include "ops.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_act_bwd_reduce.h"
#else
#include "../cpu/bn_act_bwd_reduce.h"
#endif

namespace rnk {
namespace {

// A batch norm of y [N, C, H, W] with its vectors [C], writing sums [2, C].
BnSide side(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& scale,
            const Tensor& bias, const Tensor& sums) {
  const ScalarType type = stats_type(y);
  check_vector(mean, y.size(1), type, y, "mean");
  check_vector(rstd, y.size(1), type, y, "rstd");
  check_vector(scale, y.size(1), type, y, "scale");
  check_vector(bias, y.size(1), type, y, "bias");
  return {device_ptr(y),     device_ptr(mean), device_ptr(rstd),
          device_ptr(scale), device_ptr(bias), device_ptr(sums)};
}

void run(const Tensor& dz, const Tensor& y, const BnSide& bn, const BnSide& bn2,
         const OptionalTensor& residual, const OptionalTensor& mask, const OptionalTensor& g,
         int64_t act, double slope) {
  const ActivationView view = activation_view(y, "y");
  check_same(dz, y, "dz");
  if (residual.has_value()) check_same(*residual, y, "residual");
  check_mask(mask, y);
  BnActBwdReduceParams params{device_ptr(dz),
                              bn,
                              bn2,
                              device_ptr(residual),
                              static_cast<const uint8_t*>(device_ptr(mask)),
                              device_ptr(g),
                              view.outer,
                              view.channels,
                              view.inner,
                              dtype_of(y, "y"),
                              act_of(act),
                              slope,
                              nullptr};
  const DeviceScope scope(y);
  const OptionalTensor workspace = empty_bytes(y, launch::bn_act_bwd_reduce_workspace(params));
  params.workspace = device_ptr(workspace);
  launch::bn_act_bwd_reduce(params, scope.context());
  scope.check_launch("bn_act_bwd_reduce");
}

Tensor empty_sums(const Tensor& y) {
  STD_TORCH_CHECK(y.dim() == 4, "y: expected 4 dimensions [N, C, H, W], got ", y.dim());
  return empty_on(y, {2, y.size(1)}, stats_type(y));
}

}  // namespace

Tensor bn_act_bwd_reduce(const Tensor& dz, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                         const Tensor& scale, const Tensor& bias, int64_t act, double slope) {
  Tensor sums = empty_sums(y);
  const BnSide bn = side(y, mean, rstd, scale, bias, sums);
  run(dz, y, bn, BnSide{}, std::nullopt, std::nullopt, std::nullopt, act, slope);
  return sums;
}

std::tuple<Tensor, Tensor> bn_act_bwd_reduce_add(const Tensor& dz, const Tensor& y,
                                                 const Tensor& mean, const Tensor& rstd,
                                                 const Tensor& scale, const Tensor& bias,
                                                 const OptionalTensor& residual,
                                                 const OptionalTensor& mask, int64_t act,
                                                 double slope) {
  const Tensor sums = empty_sums(y), g = empty_same(y);
  const BnSide bn = side(y, mean, rstd, scale, bias, sums);
  run(dz, y, bn, BnSide{}, residual, mask, g, act, slope);
  return {g, sums};
}

std::tuple<Tensor, Tensor, Tensor> bn_act_bwd_reduce_dual(
    const Tensor& dz, const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& scale,
    const Tensor& bias, const Tensor& y2, const Tensor& mean2, const Tensor& rstd2,
    const Tensor& scale2, const Tensor& bias2, const OptionalTensor& mask, int64_t act,
    double slope) {
  check_same(y2, y, "y2");
  const Tensor sums = empty_sums(y), sums2 = empty_sums(y), g = empty_same(y);
  const BnSide bn = side(y, mean, rstd, scale, bias, sums);
  const BnSide bn2 = side(y2, mean2, rstd2, scale2, bias2, sums2);
  run(dz, y, bn, bn2, std::nullopt, mask, g, act, slope);
  return {g, sums, sums2};
}

}  // namespace rnk

RNK_REGISTER(bn_act_bwd_reduce)
RNK_REGISTER(bn_act_bwd_reduce_add)
RNK_REGISTER(bn_act_bwd_reduce_dual)
