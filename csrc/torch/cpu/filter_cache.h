// Packed filters kept between calls, for inference, where filters do not change.
#pragma once

#include <memory>

#include "../../cpu/conv_fwd.h"
#include "../tensor.h"

namespace rnk {

// Whether w, the tensor that params.w belongs to, may be kept packed at all.
bool may_keep_filter(const Tensor& w, const ConvFwdParams& params);

// params.w packed for conv_fwd, if it may be kept and has been met unchanged; else null.
std::shared_ptr<const float> kept_filter(const Tensor& w, const ConvFwdParams& params,
                                         cpu::ParallelFor parallel_for);

}  // namespace rnk
