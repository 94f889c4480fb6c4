// An activation function on several values: the choice of the function is made once.
#pragma once

#include "act.cuh"

namespace rnk::cuda {

template <int kCount>
__device__ inline void apply_act_all(float (&t)[kCount], Act act, float slope) {
  const auto each = [&](Act known) {
#pragma unroll
    for (float& value : t) value = apply_act(value, known, slope);
  };
  switch (act) {
    case Act::kIdentity:
      return;
    case Act::kRelu:
      return each(Act::kRelu);
    case Act::kGelu:
      return each(Act::kGelu);
    case Act::kSilu:
      return each(Act::kSilu);
    case Act::kLeakyRelu:
      return each(Act::kLeakyRelu);
  }
}

// dz *= act'(t).
template <int kCount>
__device__ inline void apply_act_grad_all(float (&dz)[kCount], const float (&t)[kCount], Act act,
                                          float slope) {
  const auto each = [&](Act known) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) dz[i] = act_grad(dz[i], t[i], known, slope);
  };
  switch (act) {
    case Act::kIdentity:
      return;
    case Act::kRelu:
      return each(Act::kRelu);
    case Act::kGelu:
      return each(Act::kGelu);
    case Act::kSilu:
      return each(Act::kSilu);
    case Act::kLeakyRelu:
      return each(Act::kLeakyRelu);
  }
}

}  // namespace rnk::cuda
