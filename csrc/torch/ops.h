// Those ops that other ops are made of; defined in csrc/torch/<op>.cpp.
#pragma once

#include "tensor.h"

namespace rnk {

Tensor bn_act_fwd(const Tensor& y, const Tensor& scale, const Tensor& bias,
                  const OptionalTensor& residual, const OptionalTensor& scale2,
                  const OptionalTensor& bias2, int64_t act, double slope);

Tensor bn_stats(const Tensor& x);

std::tuple<Tensor, Tensor> bn_act_bwd_reduce_add(const Tensor& dz, const Tensor& y,
                                                 const Tensor& mean, const Tensor& rstd,
                                                 const Tensor& scale, const Tensor& bias,
                                                 const OptionalTensor& residual,
                                                 const OptionalTensor& mask, int64_t act,
                                                 double slope);

}  // namespace rnk
