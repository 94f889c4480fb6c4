// linear_inference: x w' + bias without gradients, as a 1x1 convolution of images of one pixel
// whose filter is kept packed. A classifier's weight is read once a call, and in panels it is read
// in order; row by row of the matrix, 8 MB took 4 ms where the packed form takes 1.
#include "../../cpu/conv_fwd.h"
#include "../backend.h"
#include "conv_own.h"
#include "filter_cache.h"

namespace rnk {
namespace {

bool is_own(const Tensor& t, int64_t dim) {
  return t.is_cpu() && t.scalar_type() == ScalarType::Float && t.dim() == dim && t.numel() > 0 &&
         t.is_contiguous();
}

// x [N, C], w [K, C], bias [K]. Nothing for what is not fp32 and dense, and for a weight that is
// not kept packed: torch's product is faster then.
OptionalTensor linear_inference(const Tensor& x, const Tensor& w, const OptionalTensor& bias) {
  if (!is_own(x, 2) || !is_own(w, 2) || x.size(1) != w.size(1)) return std::nullopt;
  if (bias.has_value() && (!is_own(*bias, 1) || bias->numel() != w.size(0))) return std::nullopt;
  ConvFwdParams params{};
  params.shape = {x.size(0), x.size(1), 1, 1, w.size(0), 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  params.w = floats(w);
  params.w_strides = {w.size(1), 1, w.size(1), w.size(1)};
  params.kernel = cpu::conv_kernel(params.shape);
  if (!cpu::conv_fwd_serves(params.shape, DType::kFloat32) || !may_keep_filter(w, params)) {
    return std::nullopt;
  }
  params.x = floats(x);
  params.bias = floats(bias);
  params.threads = thread_count();
  const DeviceScope scope(x);
  const auto packed = kept_filter(w, params, scope.context());
  params.packed = packed.get();
  const Tensor y = empty_on(x, {x.size(0), w.size(0)}, ScalarType::Float);
  params.y = static_cast<float*>(device_ptr(y));
  launch::conv_fwd(params, scope.context());
  return y;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(linear_inference)
