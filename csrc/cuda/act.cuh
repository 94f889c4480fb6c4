// Activation functions and their derivatives on the compute type. NaN stays NaN, as in torch.
#pragma once

#include "../common/dtype.h"

namespace rnk::cuda {

// Distribution function and density of the standard normal; both keep their relative accuracy far
// out, where they are tiny.
template <typename T>
struct Normal {
  T cdf, density;
};

__device__ inline Normal<double> normal(double x) {
  constexpr double kInvSqrt2 = 0.707106781186547524401, kInvSqrt2Pi = 0.398942280401432677940;
  return {0.5 * erfc(-x * kInvSqrt2), kInvSqrt2Pi * exp(-0.5 * x * x)};
}

// The upper tail is exp(-x^2/2) times a polynomial in 1/(1 + 0.3 |x|), fitted to a relative error
// of 6e-8 (csrc/cpu/vec_math.h has the same). x^2 is split so that its rounding does not reach the
// exponential.
__device__ inline Normal<float> normal(float x) {
  const float t = fabsf(x) > 15.0f ? 15.0f : fabsf(x);
  const float short_t = __uint_as_float(__float_as_uint(t) & 0xfffff000u);
  const float e = expf(short_t * short_t * -0.5f) * expf((t - short_t) * (t + short_t) * -0.5f);
  const float u = 1.0f / (t * 0.3f + 1.0f);
  float p = u * 0.038407571613788605f - 0.16930828988552094f;
  p = p * u + 0.22895340621471405f;
  p = p * u - 0.07684142887592316f;
  p = p * u + 0.14276641607284546f;
  p = p * u + 0.09458541125059128f;
  p = p * u + 0.12194537371397018f;
  p = p * u + 0.11948419362306595f;
  p = p * u + 7.3731321208470035e-06f;
  const float tail = e * p;
  return {x > 0.0f ? 1.0f - tail : (x != x ? x : tail), e * 0.398942280401432678f};
}

template <typename T>
__device__ inline T apply_act(T t, Act act, T slope) {
  switch (act) {
    case Act::kRelu:
      return t < T(0) ? T(0) : t;
    case Act::kLeakyRelu:
      return t > T(0) ? t : t * slope;
    case Act::kGelu:
      return t * normal(t).cdf;
    case Act::kSilu:
      return t / (T(1) + exp(-t));
    default:
      return t;
  }
}

// dz * act'(t). A masked-out dz counts as zero even where it is not finite.
template <typename T>
__device__ inline T act_grad(T dz, T t, Act act, T slope) {
  switch (act) {
    case Act::kRelu:
      return t > T(0) ? dz : T(0);
    case Act::kLeakyRelu:
      return t > T(0) ? dz : dz * slope;
    case Act::kGelu: {
      const Normal<T> at = normal(t);
      return dz * (at.cdf + t * at.density);
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
