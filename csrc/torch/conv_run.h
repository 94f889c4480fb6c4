// What a convolution op does on one kind of backend: csrc/torch/cpu or csrc/torch/cuda.
#pragma once

#include "conv_args.h"

namespace rnk {

Tensor run_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                    const EpilogueArgs& out, const ConvGeometry& conv, bool tf32);

std::tuple<Tensor, Tensor> run_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                              const PrologueArgs& in, const ConvGeometry& conv,
                                              bool tf32);

Tensor run_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                      const Ints& input_size, const ConvGeometry& conv, bool tf32);

std::tuple<Tensor, Tensor> run_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                             const OptionalTensor& branch, const PreviousBn& bn,
                                             const ConvGeometry& conv, bool tf32);

Tensor run_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                      const ConvGeometry& conv, bool tf32);

}  // namespace rnk
