// max_pool_bwd: dx = sum of the dz of the windows whose maximum the element is.
#if !defined(RNK_BACKEND_CPU)
#include "../cuda/max_pool_bwd.h"
#else
#include "../cpu/max_pool_bwd.h"
#endif
#include "pool_shape.h"

namespace rnk {
namespace {

Tensor max_pool_bwd(const Tensor& dz, const Tensor& indices, const Ints& input_size,
                    const Ints& kernel, const Ints& stride, const Ints& padding,
                    const Ints& dilation) {
  const PoolShape shape = pool_bwd_shape(dz, input_size, {kernel, stride, padding, dilation});
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Byte, "indices: expected uint8");
  STD_TORCH_CHECK(indices.device() == dz.device(), "indices: device differs");
  check_layout(indices, dz, "indices");
  Tensor dx = empty_activation(dz, input_size, dz.scalar_type());
  const DeviceScope scope(dz);
  launch::max_pool_bwd(
      {device_ptr(dz), static_cast<const uint8_t*>(device_ptr(indices)), device_ptr(dx), shape},
      scope.context());
  scope.check_launch("max_pool_bwd");
  return dx;
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(max_pool_bwd)
