// x w' + bias as a 1x1 convolution of images of one pixel whose filter is kept packed. A
// classifier's weight is read once a call, and in panels it is read in order; row by row of the
// matrix, 8 MB took 4 ms where the packed form takes 1.
#pragma once

#include "../../cpu/conv_fwd.h"
#include "../backend.h"
#include "conv_own.h"
#include "filter_cache.h"

namespace rnk {

class RunningLinear {
 public:
  // For x [rows, channels], w [K, C], bias [K]. Nothing for what is not fp32 and dense or does not
  // fit, and for a weight that is not kept packed: torch's product is faster then.
  static std::optional<RunningLinear> of(int64_t rows, int64_t channels, const Tensor& w,
                                         const OptionalTensor& bias) {
    if (!is_own(w, 2) || channels != w.size(1)) return std::nullopt;
    if (bias.has_value() && (!is_own(*bias, 1) || bias->numel() != w.size(0))) return std::nullopt;
    ConvFwdParams params{};
    params.shape = {rows, w.size(1), 1, 1, w.size(0), 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};
    params.w = floats(w);
    params.w_strides = {w.size(1), 1, w.size(1), w.size(1)};
    params.kernel = cpu::conv_kernel(params.shape);
    if (!cpu::conv_fwd_serves(params.shape, DType::kFloat32) || !may_keep_filter(w, params))
      return std::nullopt;
    params.bias = floats(bias);
    params.threads = thread_count();
    return RunningLinear(w, params);
  }

  static bool is_own(const Tensor& t, int64_t dim) {
    return t.is_cpu() && t.scalar_type() == ScalarType::Float && t.dim() == dim && t.numel() > 0 &&
           t.is_contiguous();
  }

  // x: rows of channels, in this order.
  Tensor run(const float* x, cpu::ParallelFor parallel_for) {
    const auto packed = kept_filter(w_, params_, parallel_for);
    const Tensor y = empty_on(w_, {params_.shape.n, w_.size(0)}, ScalarType::Float);
    params_.x = x;
    params_.packed = packed.get();
    params_.y = static_cast<float*>(device_ptr(y));
    launch::conv_fwd(params_, parallel_for);
    return y;
  }

 private:
  RunningLinear(const Tensor& w, const ConvFwdParams& params) : w_(w), params_(params) {}

  Tensor w_;
  ConvFwdParams params_;
};

}  // namespace rnk
