// conv_wgrad: the gradient of the filter where the convolution read in_act(in_scale * x + in_bias),
// in the strides of the filter.
#include "../cpu/conv_wgrad.h"

#include "../cpu/conv_serves.h"
#include "backend.h"
#include "conv_aten.h"

namespace rnk {
namespace {

Tensor conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w,
                  const OptionalTensor& in_scale, const OptionalTensor& in_bias, int64_t in_act,
                  double in_slope, const Ints& stride, const Ints& padding, const Ints& dilation,
                  int64_t groups, bool /*tf32*/) {
  const PrologueArgs in{in_scale, in_bias, in_act, in_slope};
  const ConvGeometry conv{stride, padding, dilation, groups};
  const bool own =
      is_own_layout(x, w, conv_format(x, w)) && is_own_layout(dy, w, conv_format(x, w));
  if (!own) return aten_conv_wgrad(dy, x, w, in, conv);
  const ConvShape shape = conv_shape(sizes_of(x), w, conv);
  if (!cpu::conv_serves(shape)) return aten_conv_wgrad(dy, x, w, in, conv);
  STD_TORCH_CHECK(dy.size(0) == shape.n && dy.size(1) == shape.k && dy.size(2) == shape.p &&
                      dy.size(3) == shape.q,
                  "dy: not the size of the convolution's output");
  const Tensor dw = torch::stable::empty_like(w);
  const DeviceScope scope(dy);
  launch::conv_wgrad({floats(dy), floats(x), prologue_params(in, x),
                      static_cast<float*>(device_ptr(dw)), filter_strides(dw), shape},
                     scope.context());
  return dw;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(conv_wgrad)
