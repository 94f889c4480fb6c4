// The filter gradient on the CPU: our fp32 kernels where they serve, else torch's convolution.
#include "../../cpu/conv_wgrad.h"

#include "../../cpu/conv_serves.h"
#include "../backend.h"
#include "../conv_aten.h"
#include "../conv_run.h"
#include "conv_own.h"

namespace rnk {

Tensor run_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                      const ConvGeometry& conv, bool /*tf32*/) {
  const bool own =
      is_own_layout(x, w, conv_format(x, w)) && is_own_layout(dy, w, conv_format(x, w));
  if (!own) return aten_conv_wgrad(dy, x, w, in, conv);
  const ConvShape shape = conv_shape(sizes_of(x), w, conv);
  if (!cpu::conv_serves(shape)) return aten_conv_wgrad(dy, x, w, in, conv);
  check_output_size(dy, shape);
  const Tensor dw = torch::stable::empty_like(w);
  const DeviceScope scope(dy);
  launch::conv_wgrad({floats(dy), floats(x), prologue_params(in, x),
                      static_cast<float*>(device_ptr(dw)), filter_strides(dw), shape},
                     scope.context());
  return dw;
}

}  // namespace rnk
