// conv_wgrad: the gradient of the filter where the convolution read in_act(in_scale * x + in_bias),
// in the strides of the filter.
#include "backend.h"
#include "conv_run.h"

namespace rnk {
namespace {

Tensor conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w,
                  const OptionalTensor& in_scale, const OptionalTensor& in_bias, int64_t in_act,
                  double in_slope, const Ints& stride, const Ints& padding, const Ints& dilation,
                  int64_t groups, bool tf32) {
  return run_conv_wgrad(dy, x, w, {in_scale, in_bias, in_act, in_slope},
                        {stride, padding, dilation, groups}, tf32);
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_wgrad)
