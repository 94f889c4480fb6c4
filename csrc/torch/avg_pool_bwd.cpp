// avg_pool_bwd: dx = sum of dz / divisor over the windows the element lies in.
#if !defined(RNK_BACKEND_CPU)
#include "../cuda/avg_pool_bwd.h"
#else
#include "../cpu/avg_pool_bwd.h"
#endif
#include "pool_shape.h"

namespace rnk {
namespace {

Tensor avg_pool_bwd(const Tensor& dz, const Ints& input_size, const Ints& kernel,
                    const Ints& stride, const Ints& padding, bool ceil_mode,
                    bool count_include_pad) {
  PoolWindow window{kernel, stride, padding, {1, 1}};
  check_window(window);
  const PoolShape shape = pool_bwd_shape(dz, input_size, window);
  for (int i = 0; i < 2; ++i) {  // the kernels trust that every output's window meets the input
    STD_TORCH_CHECK(pool_out(input_size[i + 2], window, i, ceil_mode) == dz.size(i + 2),
                    "dz: size does not fit input_size");
  }
  Tensor dx = empty_activation(dz, input_size, dz.scalar_type());
  const DeviceScope scope(dz);
  launch::avg_pool_bwd({device_ptr(dz), device_ptr(dx), shape, count_include_pad}, scope.context());
  scope.check_launch("avg_pool_bwd");
  return dx;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(avg_pool_bwd)
