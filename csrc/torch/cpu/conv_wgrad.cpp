// The filter gradient on the CPU: our fp32 and bf16 kernels where they serve, else torch's
// convolution.
#include "../../cpu/conv_wgrad.h"

#include "../backend.h"
#include "../conv_aten.h"
#include "../conv_run.h"
#include "conv_own.h"

namespace rnk {
namespace {

template <typename Element>
std::optional<Tensor> own_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w,
                                     const PrologueArgs& in, const ConvGeometry& conv) {
  const MemoryFormat format = conv_format(x, w);
  if (!is_own_layout<Element>(x, w, format) || !is_own_layout<Element>(dy, w, format)) {
    return std::nullopt;
  }
  const ConvShape shape = conv_shape(sizes_of(x), w, conv);
  if (!cpu::conv_wgrad_serves(shape, dtype_of(x, "x"))) return std::nullopt;
  check_output_size(dy, shape);
  const Tensor dw = empty_same(w);
  const DeviceScope scope(dy);
  launch::conv_wgrad(
      ConvWgradParamsOf<Element>{elements<Element>(dy), elements<Element>(x),
                                 prologue_params(in, x), static_cast<Element*>(device_ptr(dw)),
                                 filter_strides(dw), shape},
      scope.context());
  return dw;
}

}  // namespace

Tensor run_conv_wgrad(const Tensor& dy, const Tensor& x, const Tensor& w, const PrologueArgs& in,
                      const ConvGeometry& conv, bool /*tf32*/) {
  if (const auto dw = own_conv_wgrad<float>(dy, x, w, in, conv)) return *dw;
  if (const auto dw = own_conv_wgrad<cpu::BFloat16>(dy, x, w, in, conv)) return *dw;
  return aten_conv_wgrad(dy, x, w, in, conv);
}

}  // namespace rnk
