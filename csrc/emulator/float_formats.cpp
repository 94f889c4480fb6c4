#include "float_formats.h"

namespace rnk::emu {
namespace {

bool rounds_away(Round mode, bool negative, bool odd, uint64_t rest, uint64_t half) {
  switch (mode) {
    case Round::kNearestEven:
      return rest > half || (rest == half && odd);
    case Round::kNearestAway:
      return rest >= half;
    case Round::kUp:
      return rest && !negative;
    case Round::kDown:
      return rest && negative;
    default:
      return false;
  }
}

}  // namespace

uint32_t round_to(double d, const FloatFormat& f, Round mode) {
  if (std::isnan(d)) return f.nan;
  uint64_t u = double_bits(d);
  bool negative = u >> 63;
  uint32_t sign = static_cast<uint32_t>(negative) << (f.mantissa + f.exponent);
  uint32_t infinity = ((1u << f.exponent) - 1) << f.mantissa;
  if (std::isinf(d)) return sign | infinity;
  if (d == 0) return sign;
  int bias = (1 << (f.exponent - 1)) - 1;
  int e;
  double m = std::frexp(std::fabs(d), &e);  // |d| = m * 2^e, m in [0.5, 1)
  auto fraction = static_cast<uint64_t>(std::ldexp(m, 53));
  int biased = e - 1 + bias;  // of the leading bit
  int drop = 52 - f.mantissa;
  if (biased < 1) {
    drop += 1 - biased;
    biased = 1;
  }
  uint64_t kept, rest, half;
  if (drop > 60) {
    kept = 0, rest = 1, half = 2;
  } else {
    kept = fraction >> drop;
    rest = fraction & ((uint64_t{1} << drop) - 1);
    half = uint64_t{1} << (drop - 1);
  }
  kept += rounds_away(mode, negative, kept & 1, rest, half);
  // kept includes the implicit bit for normals; a carry moves into the exponent by itself.
  uint64_t bits = (static_cast<uint64_t>(biased - 1) << f.mantissa) + kept;
  if (bits >= infinity) {
    bool to_infinity = mode == Round::kNearestEven || mode == Round::kNearestAway ||
                       (mode == Round::kUp && !negative) || (mode == Round::kDown && negative);
    bits = to_infinity ? infinity : infinity - 1;
  }
  return sign | static_cast<uint32_t>(bits);
}

}  // namespace rnk::emu
