// bn_finalize: statistics [G, 3, C] -> mean, rstd, scale, bias, count; updates the running
// statistics.
#include "backend.h"
#include "ops.h"
#include "vectors.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_finalize.h"
#else
#include "../cpu/bn_finalize.h"
#endif

namespace rnk {
namespace {

int64_t* counter(const OptionalTensor& t, const Tensor& like) {
  if (!t.has_value()) return nullptr;
  STD_TORCH_CHECK(t->numel() == 1 && t->scalar_type() == ScalarType::Long,
                  "num_batches_tracked: expected one int64");
  STD_TORCH_CHECK(t->device() == like.device(), "num_batches_tracked: device differs");
  return static_cast<int64_t*>(device_ptr(*t));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_finalize(
    const Tensor& stats, const OptionalTensor& gamma, const OptionalTensor& beta,
    const OptionalTensor& conv_bias, const OptionalTensor& running_mean,
    const OptionalTensor& running_var, const OptionalTensor& num_batches_tracked,
    std::optional<double> momentum, double eps) {
  STD_TORCH_CHECK(stats.dim() == 3 && stats.size(1) == 3 && stats.is_contiguous(),
                  "stats: expected contiguous [G, 3, C]");
  const ScalarType type = stats.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                  "stats: expected float32 or float64");
  const int64_t channels = stats.size(2);
  const Tensor mean = empty_on(stats, {channels}, type), rstd = empty_on(stats, {channels}, type);
  const Tensor scale = empty_on(stats, {channels}, type), bias = empty_on(stats, {channels}, type);
  const Tensor count = empty_on(stats, {1}, type);
  const BnFinalizeParams params{device_ptr(stats),
                                vector_in(gamma, channels, stats, "gamma"),
                                vector_in(beta, channels, stats, "beta"),
                                vector_in(conv_bias, channels, stats, "conv_bias"),
                                vector_in_out(running_mean, channels, stats, "running_mean"),
                                vector_in_out(running_var, channels, stats, "running_var"),
                                counter(num_batches_tracked, stats),
                                device_ptr(mean),
                                device_ptr(rstd),
                                device_ptr(scale),
                                device_ptr(bias),
                                device_ptr(count),
                                stats.size(0),
                                channels,
                                momentum.has_value(),
                                momentum.value_or(0),
                                eps,
                                vector_dtype(type)};
  const DeviceScope scope(stats);
  launch::bn_finalize(params, scope.context());
  scope.check_launch("bn_finalize");
  return {mean, rstd, scale, bias, count};
}

}  // namespace rnk

RNK_REGISTER(bn_finalize)
