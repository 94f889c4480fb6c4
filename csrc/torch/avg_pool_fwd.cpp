// avg_pool_fwd: z = mean over the window of act(scale * x + bias), with torch's divisor.
#if !defined(RNK_BACKEND_CPU)
#include "../cuda/avg_pool_fwd.h"
#else
#include "../cpu/avg_pool_fwd.h"
#endif
#include "pool_shape.h"

namespace rnk {
namespace {

Tensor avg_pool_fwd(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& bias,
                    int64_t act, double slope, const Ints& kernel, const Ints& stride,
                    const Ints& padding, bool ceil_mode, bool count_include_pad) {
  const PoolShape shape = pool_fwd_shape(x, {kernel, stride, padding, {1, 1}}, ceil_mode);
  check_pool_prologue(x, scale, bias);
  Tensor z = empty_pooled(x, shape, x.scalar_type());
  const DeviceScope scope(x);
  launch::avg_pool_fwd({device_ptr(x), device_ptr(scale), device_ptr(bias), device_ptr(z), shape,
                        count_include_pad, act_of(act), slope},
                       scope.context());
  scope.check_launch("avg_pool_fwd");
  return z;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(avg_pool_fwd)
