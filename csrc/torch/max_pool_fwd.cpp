// max_pool_fwd: z = max over the window of act(scale * x + bias), and the tap of the maximum as a
// byte.
#if !defined(RNK_BACKEND_CPU)
#include "../cuda/max_pool_fwd.h"
#else
#include "../cpu/max_pool_fwd.h"
#endif
#include "pool_shape.h"

namespace rnk {
namespace {

std::tuple<Tensor, Tensor> max_pool_fwd(const Tensor& x, const OptionalTensor& scale,
                                        const OptionalTensor& bias, int64_t act, double slope,
                                        const Ints& kernel, const Ints& stride, const Ints& padding,
                                        const Ints& dilation, bool ceil_mode) {
  const PoolShape shape = pool_fwd_shape(x, {kernel, stride, padding, dilation}, ceil_mode);
  STD_TORCH_CHECK(shape.kernel_h * shape.kernel_w <= 255, "kernel: at most 255 taps");
  check_pool_prologue(x, scale, bias);
  Tensor z = empty_pooled(x, shape, x.scalar_type());
  Tensor indices = empty_pooled(x, shape, ScalarType::Byte);
  const DeviceScope scope(x);
  launch::max_pool_fwd({device_ptr(x), device_ptr(scale), device_ptr(bias), device_ptr(z),
                        static_cast<uint8_t*>(device_ptr(indices)), shape, act_of(act), slope},
                       scope.context());
  scope.check_launch("max_pool_fwd");
  return {z, indices};
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(max_pool_fwd)
