// linear_inference: nn.Linear without gradients.
#include "linear_run.h"

namespace rnk {
namespace {

// x [N, C], w [K, C], bias [K]. Nothing for what RunningLinear does not serve.
OptionalTensor linear_inference(const Tensor& x, const Tensor& w, const OptionalTensor& bias) {
  if (!RunningLinear::is_own(x, 2)) return std::nullopt;
  auto linear = RunningLinear::of(x.size(0), x.size(1), w, bias);
  if (!linear) return std::nullopt;
  const DeviceScope scope(x);
  return linear->run(floats(x), scope.context());
}

}  // namespace
}  // namespace rnk

RNK_REGISTER(linear_inference)
