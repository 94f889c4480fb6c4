// conv_fwd, conv_fwd_stats: y = act(out_scale * conv(in_act(in_scale * x + in_bias), w) + out_bias
// + residual), or y = conv(...) and the statistics of y as [3, K].
#include "backend.h"
#include "conv_run.h"

namespace rnk {
namespace {

Tensor conv_fwd(const Tensor& x, const Tensor& w, const OptionalTensor& in_scale,
                const OptionalTensor& in_bias, int64_t in_act, double in_slope,
                const OptionalTensor& out_scale, const OptionalTensor& out_bias,
                const OptionalTensor& residual, int64_t out_act, double out_slope,
                const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups,
                bool tf32) {
  return run_conv_fwd(x, w, {in_scale, in_bias, in_act, in_slope},
                      {out_scale, out_bias, residual, out_act, out_slope},
                      {stride, padding, dilation, groups}, tf32);
}

std::tuple<Tensor, Tensor> conv_fwd_stats(const Tensor& x, const Tensor& w,
                                          const OptionalTensor& in_scale,
                                          const OptionalTensor& in_bias, int64_t in_act,
                                          double in_slope, const Ints& stride, const Ints& padding,
                                          const Ints& dilation, int64_t groups, bool tf32) {
  return run_conv_fwd_stats(x, w, {in_scale, in_bias, in_act, in_slope},
                            {stride, padding, dilation, groups}, tf32);
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_fwd)
RNK_REGISTER(conv_fwd_stats)
