// Element types and activations shared by the CPU and CUDA kernels and by csrc/torch.
#pragma once

namespace rnk {

enum class DType : int { kFloat32, kFloat64, kFloat16, kBFloat16 };

// Values are the `act` argument of the ops (resnet_kernels/ops/acts.py).
enum class Act : int { kIdentity, kRelu, kGelu, kSilu, kLeakyRelu };

}  // namespace rnk
