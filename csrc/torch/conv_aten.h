// The convolution ops by torch's own convolution with our kernels around it: what runs where no
// kernel of ours serves a shape, layout or dtype (the declared fallback).
#pragma once

#include "conv_args.h"

namespace rnk {

Tensor aten_conv_fwd(const Tensor& x, const Tensor& w, const PrologueArgs& in,
                     const EpilogueArgs& out, const ConvGeometry& conv);

std::tuple<Tensor, Tensor> aten_conv_fwd_stats(const Tensor& x, const Tensor& w,
                                               const PrologueArgs& in, const ConvGeometry& conv);

Tensor aten_conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                       const Ints& input_size, const ConvGeometry& conv, MemoryFormat format);

std::tuple<Tensor, Tensor> aten_conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                              const OptionalTensor& branch, const PreviousBn& bn,
                                              const ConvGeometry& conv);

Tensor aten_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                       const ConvGeometry& conv);

}  // namespace rnk
