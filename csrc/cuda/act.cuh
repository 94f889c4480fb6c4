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

// dz * act'(t). A masked-out dz counts as zero even where it is not finite, as in torch.
template <typename T>
__device__ inline T act_grad(T dz, T t, Act act, T slope) {
  constexpr double kInvSqrt2 = 0.70710678118654752440, kInvSqrt2Pi = 0.39894228040143267794;
  switch (act) {
    case Act::kRelu:
      return t > T(0) ? dz : T(0);
    case Act::kLeakyRelu:
      return t > T(0) ? dz : dz * slope;
    case Act::kGelu: {
      const T cdf = T(0.5) * (T(1) + erf(t * T(kInvSqrt2)));
      return dz * (cdf + t * exp(T(-0.5) * t * t) * T(kInvSqrt2Pi));
    }
    case Act::kSilu: {
      const T sigmoid = T(1) / (T(1) + exp(-t));
      return dz * (sigmoid * (T(1) + t * (T(1) - sigmoid)));
    }
    default:
      return dz;
  }
}

}  // namespace rnk::cuda
