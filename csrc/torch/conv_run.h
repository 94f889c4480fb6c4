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

// The same, and dy = A * g + B * (y - mean) + C as the last tensor.
std::tuple<Tensor, Tensor> run_conv_apply_dgrad(const NextBn& next, const Tensor& w,
                                                const OptionalTensor& branch,
                                                const Ints& input_size, const ConvGeometry& conv,
                                                bool tf32);

std::tuple<Tensor, Tensor, Tensor> run_conv_apply_dgrad_bn(const NextBn& next, const Tensor& w,
                                                           const OptionalTensor& branch,
                                                           const PreviousBn& bn,
                                                           const ConvGeometry& conv, bool tf32);

// The op of bn_bwd_apply.cpp without an activation.
Tensor apply_bn_bwd(const NextBn& next);

Tensor run_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                      const ConvGeometry& conv, bool tf32);

}  // namespace rnk
