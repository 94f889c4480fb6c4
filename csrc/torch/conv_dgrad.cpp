// conv_dgrad, conv_dgrad_bn: dx = the transposed convolution of dy [+ branch]; with the batch norm
// and activation in front, g = dx * act' and its sums [2, C] in the same pass. conv_apply_dgrad,
// conv_apply_dgrad_bn: the same of dy = A * g + B * (y - mean) + C, which they return too.
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

std::tuple<Tensor, Tensor> conv_apply_dgrad(const Tensor& g, const Tensor& y, const Tensor& mean,
                                            const Tensor& abc, const Tensor& w,
                                            const OptionalTensor& branch, const Ints& input_size,
                                            const Ints& stride, const Ints& padding,
                                            const Ints& dilation, int64_t groups, bool tf32) {
  return run_conv_apply_dgrad({g, y, mean, abc}, w, branch, input_size,
                              {stride, padding, dilation, groups}, tf32);
}

std::tuple<Tensor, Tensor, Tensor> conv_apply_dgrad_bn(
    const Tensor& g, const Tensor& y, const Tensor& mean, const Tensor& abc, const Tensor& w,
    const OptionalTensor& branch, const Tensor& y_prev, const Tensor& mean_prev,
    const Tensor& rstd_prev, const Tensor& scale_prev, const Tensor& bias_prev,
    const OptionalTensor& mask, int64_t act, double slope, const Ints& stride, const Ints& padding,
    const Ints& dilation, int64_t groups, bool tf32) {
  return run_conv_apply_dgrad_bn(
      {g, y, mean, abc}, w, branch,
      {y_prev, mean_prev, rstd_prev, scale_prev, bias_prev, mask, act, slope},
      {stride, padding, dilation, groups}, tf32);
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_dgrad)
RNK_REGISTER(conv_dgrad_bn)
RNK_REGISTER(conv_apply_dgrad)
RNK_REGISTER(conv_apply_dgrad_bn)
