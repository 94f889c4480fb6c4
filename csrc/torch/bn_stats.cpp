// bn_stats: per channel count, mean and M2 of x, as [3, C].
#include "backend.h"
#include "ops.h"

#if !defined(RNK_BACKEND_CPU)
#include "../cuda/bn_stats.h"
#else
#include "../cpu/bn_stats.h"
#endif

namespace rnk {

Tensor bn_stats(const Tensor& x) {
  const ActivationView view = activation_view(x, "x");
  Tensor stats = empty_on(x, {3, view.channels}, stats_type(x));
  const DeviceScope scope(x);
  BnStatsParams params{device_ptr(x), device_ptr(stats), view.outer, view.channels,
                       view.inner,    dtype_of(x, "x"),  nullptr};
  const OptionalTensor workspace = empty_bytes(x, launch::bn_stats_workspace(params));
  params.workspace = device_ptr(workspace);
  launch::bn_stats(params, scope.context());
  scope.check_launch("bn_stats");
  return stats;
}

}  // namespace rnk

RNK_REGISTER(bn_stats)
