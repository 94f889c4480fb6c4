// What may follow a row of chains: the mean of each channel and a linear layer. To come back to
// Python for pooling, flattening and the product takes longer than they do: what they need there
// left the caches while the convolutions ran.
#pragma once

#include "../../cpu/avg_pool_fwd.h"
#include "../pool_shape.h"
#include "linear_run.h"

namespace rnk {

class ChainHead {
 public:
  // tensors: weight [K, C] and, if there is one, bias [K]; size: [N, C, H, W] of what arrives.
  // Nothing for no tensors, and for what RunningLinear does not serve.
  static std::optional<ChainHead> of(const std::vector<Tensor>& tensors, const Ints& size) {
    if (tensors.empty()) return std::nullopt;
    const OptionalTensor bias = tensors.size() > 1 ? OptionalTensor(tensors[1]) : std::nullopt;
    auto linear = RunningLinear::of(size[0], size[1], tensors[0], bias);
    if (!linear) return std::nullopt;
    return ChainHead(std::move(*linear), size);
  }

  // x: channels_last. Gives [N, K].
  Tensor run(const Tensor& x, cpu::ParallelFor parallel_for) {
    const Tensor mean = empty_on(x, {shape_.n, shape_.c}, ScalarType::Float);
    float* to = static_cast<float*>(device_ptr(mean));
    launch::avg_pool_fwd({device_ptr(x), nullptr, nullptr, to, shape_, true, Act::kIdentity, 0},
                         parallel_for);
    return linear_.run(to, parallel_for);
  }

 private:
  ChainHead(RunningLinear linear, const Ints& size)
      : linear_(std::move(linear)),
        shape_(pool_shape({{size[2], size[3]}, {size[2], size[3]}, {0, 0}, {1, 1}}, size, 1, 1,
                          true, DType::kFloat32)) {}

  RunningLinear linear_;
  PoolShape shape_;
};

}  // namespace rnk
