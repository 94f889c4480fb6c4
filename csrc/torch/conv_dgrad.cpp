// conv_dgrad, conv_dgrad_bn: dx = the transposed convolution of dy [+ branch]; with the batch norm
// and activation in front, g = dx * act' and its sums [2, C] in the same pass.
#include "backend.h"
#include "conv_run.h"

namespace rnk {
namespace {

Tensor conv_dgrad(const Tensor& dy, const Tensor& w, const OptionalTensor& branch,
                  const Ints& input_size, const Ints& stride, const Ints& padding,
                  const Ints& dilation, int64_t groups, bool tf32) {
  return run_conv_dgrad(dy, w, branch, input_size, {stride, padding, dilation, groups}, tf32);
}

std::tuple<Tensor, Tensor> conv_dgrad_bn(const Tensor& dy, const Tensor& w,
                                         const OptionalTensor& branch, const Tensor& y_prev,
                                         const Tensor& mean, const Tensor& rstd,
                                         const Tensor& scale, const Tensor& bias,
                                         const OptionalTensor& mask, int64_t act, double slope,
                                         const Ints& stride, const Ints& padding,
                                         const Ints& dilation, int64_t groups, bool tf32) {
  return run_conv_dgrad_bn(dy, w, branch, {y_prev, mean, rstd, scale, bias, mask, act, slope},
                           {stride, padding, dilation, groups}, tf32);
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_dgrad)
RNK_REGISTER(conv_dgrad_bn)
