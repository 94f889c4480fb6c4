// bn_affine: running statistics [C] -> mean, rstd, scale, bias.
#include "backend.h"
#include "vectors.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_affine.h"
#else
#include "../cpu/bn_affine.h"
#endif

namespace rnk {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> bn_affine(const Tensor& running_mean,
                                                     const Tensor& running_var,
                                                     const OptionalTensor& gamma,
                                                     const OptionalTensor& beta,
                                                     const OptionalTensor& conv_bias, double eps) {
  const int64_t channels = running_mean.numel();
  const ScalarType type = stats_type(running_mean);
  const Tensor& like = running_mean;
  const Tensor mean = empty_on(like, {channels}, type), rstd = empty_on(like, {channels}, type);
  const Tensor scale = empty_on(like, {channels}, type), bias = empty_on(like, {channels}, type);
  const BnAffineParams params{vector_in(running_mean, channels, like, "running_mean"),
                              vector_in(running_var, channels, like, "running_var"),
                              vector_in(gamma, channels, like, "gamma"),
                              vector_in(beta, channels, like, "beta"),
                              vector_in(conv_bias, channels, like, "conv_bias"),
                              device_ptr(mean),
                              device_ptr(rstd),
                              device_ptr(scale),
                              device_ptr(bias),
                              channels,
                              eps,
                              vector_dtype(type)};
  const DeviceScope scope(running_mean);
  launch::bn_affine(params, scope.context());
  scope.check_launch("bn_affine");
  return {mean, rstd, scale, bias};
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(bn_affine)
