// Those ops that other ops are made of; defined in csrc/torch/<op>.cpp.
#pragma once

#include "tensor.h"

namespace rnk {

Tensor bn_act_fwd(const Tensor& y, const Tensor& scale, const Tensor& bias,
                  const OptionalTensor& residual, const OptionalTensor& scale2,
                  const OptionalTensor& bias2, int64_t act, double slope);

std::tuple<Tensor, Tensor> bn_act_fwd_mask(const Tensor& y, const Tensor& scale, const Tensor& bias,
                                           const OptionalTensor& residual,
                                           const OptionalTensor& scale2,
                                           const OptionalTensor& bias2, int64_t act, double slope);

Tensor bn_stats(const Tensor& x);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_finalize(
    const Tensor& stats, const OptionalTensor& gamma, const OptionalTensor& beta,
    const OptionalTensor& conv_bias, const OptionalTensor& running_mean,
    const OptionalTensor& running_var, const OptionalTensor& num_batches_tracked,
    std::optional<double> momentum, double eps);

Tensor bn_act_bwd_reduce(const Tensor& dz, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                         const Tensor& scale, const Tensor& bias, int64_t act, double slope);

std::tuple<Tensor, Tensor> bn_act_bwd_reduce_add(const Tensor& dz, const Tensor& y,
                                                 const Tensor& mean, const Tensor& rstd,
                                                 const Tensor& scale, const Tensor& bias,
                                                 const OptionalTensor& residual,
                                                 const OptionalTensor& mask, int64_t act,
                                                 double slope);

std::tuple<Tensor, Tensor, Tensor> bn_act_bwd_reduce_dual(
    const Tensor& dz, const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& scale,
    const Tensor& bias, const Tensor& y2, const Tensor& mean2, const Tensor& rstd2,
    const Tensor& scale2, const Tensor& bias2, const OptionalTensor& mask, int64_t act,
    double slope);

Tensor bn_bwd_finalize(const Tensor& sums, const OptionalTensor& gamma, const Tensor& rstd,
                       const Tensor& count);

Tensor bn_bwd_apply(const Tensor& g, const Tensor& y, const Tensor& mean, const Tensor& abc,
                    const OptionalTensor& scale, const OptionalTensor& bias, int64_t act,
                    double slope);

}  // namespace rnk
