// Exact conversions between float formats, and operations rounded to odd in double: rounding such a
// result once more to 24 bits or fewer gives the correctly rounded one in every rounding mode.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "types.h"

namespace rnk::emu {

inline float bits_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline double bits_double(uint64_t u) {
  double d;
  std::memcpy(&d, &u, 8);
  return d;
}
inline uint64_t double_bits(double d) {
  uint64_t u;
  std::memcpy(&u, &d, 8);
  return u;
}

inline float half_to_float(uint16_t h) {
  uint32_t magnitude = static_cast<uint32_t>(h & 0x7FFF) << 13;
  uint32_t special = (h & 0x7C00) == 0x7C00 ? 0x7F800000u | (h & 0x3FFu) << 13 : 0;
  uint32_t u = special ? special : float_bits(bits_float(magnitude) * 0x1p112f);
  return bits_float(u | static_cast<uint32_t>(h & 0x8000) << 16);
}
inline float bf16_to_float(uint16_t b) { return bits_float(static_cast<uint32_t>(b) << 16); }

// Nearest-even; a NaN becomes the canonical 0x7FFF.
inline uint16_t float_to_half(float f) {
  uint32_t u = float_bits(f), sign = u >> 16 & 0x8000;
  u &= 0x7FFFFFFF;
  if (u > 0x7F800000) return 0x7FFF;
  if (u >= 0x47800000) return static_cast<uint16_t>(sign | 0x7C00);
  if (u < 0x38800000) {  // subnormal: the addition rounds at 2^-24
    uint32_t r = float_bits(bits_float(u) + 0.5f) - 0x3F000000;
    return static_cast<uint16_t>(sign | r);
  }
  u += 0xC8000FFF + (u >> 13 & 1);
  return static_cast<uint16_t>(sign | (u >> 13));
}
inline uint16_t float_to_bf16(float f) {
  uint32_t u = float_bits(f);
  if ((u & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
  return static_cast<uint16_t>((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

// exact says that s is the true result; else the true one lies on the side of `error`.
inline double to_odd(double s, double error) {
  if (error == 0 || !std::isfinite(s) || !std::isfinite(error)) return s;
  uint64_t u = double_bits(s);
  if (u & 1) return s;
  if (s == 0) return error > 0 ? 0x1p-1074 : -0x1p-1074;
  return bits_double((error > 0) == (s > 0) ? u + 1 : u - 1);
}
inline double add_odd(double a, double b) {
  double s = a + b, t = s - a;
  return to_odd(s, (a - (s - t)) + (b - t));
}
inline double fma_odd(double a, double b, double c) { return add_odd(a * b, c); }
inline double div_odd(double a, double b) {
  double q = a / b, r = std::fma(-q, b, a);
  return to_odd(q, b > 0 ? r : -r);
}
inline double sqrt_odd(double a) {
  double s = std::sqrt(a);
  return to_odd(s, std::fma(-s, s, a));
}
// double to float keeping the information that it was inexact
inline float to_float_odd(double d) {
  float f = static_cast<float>(d);
  if (std::isnan(d) || static_cast<double>(f) == d) return f;
  if (std::isinf(f)) return bits_float(float_bits(f) - 1);  // the largest finite is odd
  uint32_t u = float_bits(f);
  if (u & 1) return f;
  if (f == 0) return bits_float((d < 0 ? 0x80000000u : 0) | 1);
  return bits_float((std::fabs(d) > std::fabs(static_cast<double>(f))) ? u + 1 : u - 1);
}

struct FloatFormat {
  int mantissa;  // stored bits
  int exponent;  // bits
  uint32_t nan;  // canonical
};
constexpr FloatFormat kHalfFormat{10, 5, 0x7FFF}, kBf16Format{7, 8, 0x7FFF},
    kTf32Format{10, 8, 0x3FFFF}, kFloatFormat{23, 8, 0x7FFFFFFF};

// The bits of d (rounded to odd or exact) in the format, in any mode.
uint32_t round_to(double d, const FloatFormat& f, Round mode);

}  // namespace rnk::emu
