// Single numbers of any float dtype, for the ops on per-channel vectors, which are too short to
// matter.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../common/bn_vectors_params.h"

namespace rnk::cpu {

inline double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f, mantissa = bits & 0x3ff;
  double magnitude = std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 0) magnitude = std::ldexp(mantissa, -24);
  if (exponent == 31) magnitude = mantissa == 0 ? INFINITY : NAN;
  return bits & 0x8000 ? -magnitude : magnitude;
}

// Nearest, ties to even: scaled so that one unit is one step of the format, then rounded as an
// integer.
inline uint16_t half_bits(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 0x1p-24 / 2) return sign;
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return sign | static_cast<uint16_t>(((exponent + 14) << 10) + steps);
}

inline double get(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat32:
      return static_cast<const float*>(data)[i];
    case DType::kFloat16:
      return half_value(static_cast<const uint16_t*>(data)[i]);
    case DType::kBFloat16: {
      const uint32_t bits = uint32_t{static_cast<const uint16_t*>(data)[i]} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
    default:
      return static_cast<const double*>(data)[i];
  }
}

// An absent vector is `otherwise` everywhere.
inline double get(const VectorIn& v, int64_t i, double otherwise) {
  return v.data == nullptr ? otherwise : get(v.data, v.dtype, i);
}

inline void put(void* data, DType dtype, int64_t i, double value) {
  switch (dtype) {
    case DType::kFloat32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case DType::kFloat16:
      static_cast<uint16_t*>(data)[i] = half_bits(value);
      return;
    case DType::kBFloat16: {
      const float rounded = static_cast<float>(value);
      uint32_t bits;
      std::memcpy(&bits, &rounded, sizeof(bits));
      const uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
      static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(std::isnan(value) ? 0x7fc0 : nearest);
      return;
    }
    default:
      static_cast<double*>(data)[i] = value;
  }
}

// The affine form of a batch norm. bias is of mean and scale as stored, so that their rounding
// cancels in scale * y + bias where y is near the mean.
template <typename T>
struct Affine {
  T mean, rstd, scale, bias;

  Affine(double of_mean, double var, double gamma, double beta, double eps)
      : mean(static_cast<T>(of_mean)),
        rstd(static_cast<T>(1 / std::sqrt(var + eps))),
        scale(static_cast<T>(gamma * rstd)),
        bias(static_cast<T>(beta - static_cast<double>(mean) * scale)) {}
};

template <typename T, typename Params>
void store_affine_as(const Params& p, int64_t i, double mean, double var) {
  const Affine<T> affine(mean, var, get(p.gamma, i, 1), get(p.beta, i, 0), p.eps);
  static_cast<T*>(p.mean)[i] = affine.mean;
  static_cast<T*>(p.rstd)[i] = affine.rstd;
  static_cast<T*>(p.scale)[i] = affine.scale;
  static_cast<T*>(p.bias)[i] = affine.bias;
}

template <typename Params>
void store_affine(const Params& p, int64_t i, double mean, double var) {
  if (p.dtype == DType::kFloat32) return store_affine_as<float>(p, i, mean, var);
  store_affine_as<double>(p, i, mean, var);
}

}  // namespace rnk::cpu
