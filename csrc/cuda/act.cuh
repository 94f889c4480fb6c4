// Activation functions on the compute type. NaN stays NaN, as in torch.
#pragma once

#include "../common/dtype.h"

namespace rnk::cuda {

template <typename T>
__device__ inline T apply_act(T t, Act act, T slope) {
  constexpr double kInvSqrt2 = 0.70710678118654752440;
  switch (act) {
    case Act::kRelu:
      return t < T(0) ? T(0) : t;
    case Act::kLeakyRelu:
      return t > T(0) ? t : t * slope;
    case Act::kGelu:
      return T(0.5) * t * (T(1) + erf(t * T(kInvSqrt2)));
    case Act::kSilu:
      return t / (T(1) + exp(-t));
    default:
      return t;
  }
}

}  // namespace rnk::cuda
