// bn_bwd_finalize: sums [2, C], gamma, rstd, count -> A, B, C as [3, C].
#include "backend.h"
#include "ops.h"
#include "vectors.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_bwd_finalize.h"
#else
#include "../cpu/bn_bwd_finalize.h"
#endif

namespace rnk {

Tensor bn_bwd_finalize(const Tensor& sums, const OptionalTensor& gamma, const Tensor& rstd,
                       const Tensor& count) {
  STD_TORCH_CHECK(sums.dim() == 2 && sums.size(0) == 2 && sums.is_contiguous(),
                  "sums: expected contiguous [2, C]");
  const ScalarType type = sums.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                  "sums: expected float32 or float64");
  const int64_t channels = sums.size(1);
  check_vector(rstd, channels, type, sums, "rstd");
  check_vector(count, 1, type, sums, "count");
  Tensor abc = empty_on(sums, {3, channels}, type);
  const DeviceScope scope(sums);
  launch::bn_bwd_finalize(
      {device_ptr(sums), vector_in(gamma, channels, sums, "gamma"), device_ptr(rstd),
       device_ptr(count), device_ptr(abc), channels, vector_dtype(type)},
      scope.context());
  scope.check_launch("bn_bwd_finalize");
  return abc;
}

}  // namespace rnk

RNK_REGISTER(bn_bwd_finalize)
