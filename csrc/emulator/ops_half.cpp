#include "ops_half.h"

#include "float_formats.h"
#include "lanes.h"

namespace rnk::emu {
namespace {

// A 16-bit format: F16 or Bf16.
struct F16 {
  static float load(uint16_t v) { return half_to_float(v); }
  static uint16_t round(double d) { return float_to_half(to_float_odd(d)); }
  static constexpr uint16_t kOne = 0x3C00, kSmallestNormal = 0x0400;
};
struct Bf16 {
  static float load(uint16_t v) { return bf16_to_float(v); }
  // bf16 shares float's exponent, so a float rounded to odd has 16 bits to spare.
  static uint16_t round(double d) { return float_to_bf16(to_float_odd(d)); }
  static constexpr uint16_t kOne = 0x3F80, kSmallestNormal = 0x0080;
};

template <class Format>
uint16_t flush(uint16_t v) {
  return (v & 0x7FFF) < Format::kSmallestNormal ? v & 0x8000 : v;
}

template <class Format>
uint16_t finish(uint16_t r, uint32_t flags) {
  if (flags & kFtz) r = flush<Format>(r);
  bool nan = (r & 0x7FFF) == 0x7FFF;
  if (flags & kRelu && r & 0x8000 && !nan) r = 0;
  if (flags & kSat) {
    if (nan || r & 0x8000)
      r = 0;
    else
      r = std::min(r, Format::kOne);
  }
  return r;
}

template <class Format>
uint16_t arithmetic(const Instr& in, const uint16_t* v) {
  double a = Format::load(v[0]), b = Format::load(v[1]), c = Format::load(v[2]);
  switch (in.mode) {
    case 0:
      return Format::round(add_odd(a, b));
    case 1:
      return Format::round(add_odd(a, -b));
    case 2:
      return Format::round(a * b);
    default:
      return Format::round(fma_odd(a, b, c));
  }
}

template <class Format>
uint16_t extremum(const Instr& in, const uint16_t* v) {
  float a = Format::load(v[0]), b = Format::load(v[1]);
  bool smaller = in.mode == 1, xorsign = in.flags & kXorSign;
  uint16_t x = v[0], y = v[1], sign = (x ^ y) & 0x8000;
  if (xorsign) x &= 0x7FFF, y &= 0x7FFF, a = std::fabs(a), b = std::fabs(b);
  uint16_t r;
  if (a != a || b != b)
    r = in.flags & kNanResult || (a != a && b != b) ? 0x7FFF : a != a ? y : x;
  else if (a == b)
    r = std::signbit(a) == smaller ? x : y;
  else
    r = (a < b) == smaller ? x : y;
  return xorsign && (r & 0x7FFF) != 0x7FFF ? static_cast<uint16_t>(r | sign) : r;
}

template <class Format>
uint16_t function(const Instr& in, const uint16_t* v) {
  auto f = reinterpret_cast<double (*)(double)>(in.imm);
  return Format::round(f(Format::load(v[0])));
}

// Word is uint16_t for one value a lane, uint32_t for two.
template <class Format, uint16_t (*F)(const Instr&, const uint16_t*), class Word>
void half_lanes(Warp& w, const Instr& in, uint32_t mask) {
  constexpr int kParts = sizeof(Word) / 2;
  const uint16_t* s[3];
  for (int k = 0; k < 3; ++k) s[k] = w.src<uint16_t>(in.ops[k + 1 < in.op_count ? k + 1 : 1]);
  alignas(64) uint16_t r[32 * kParts];
  for (int i = 0; i < 32 * kParts; ++i) {
    uint16_t v[3];
    for (int k = 0; k < 3; ++k) v[k] = in.flags & kFtz ? flush<Format>(s[k][i]) : s[k][i];
    r[i] = finish<Format>(F(in, v), in.flags);
  }
  Word words[32];
  std::memcpy(words, r, sizeof r);
  blend(w.dst<Word>(in.ops[0]), words, mask);
}

#define RNK_PICK(FUNCTION)                                           \
  (t == Type::kF16      ? half_lanes<F16, FUNCTION<F16>, uint16_t>   \
   : t == Type::kF16x2  ? half_lanes<F16, FUNCTION<F16>, uint32_t>   \
   : t == Type::kBF16   ? half_lanes<Bf16, FUNCTION<Bf16>, uint16_t> \
   : t == Type::kBF16x2 ? half_lanes<Bf16, FUNCTION<Bf16>, uint32_t> \
                        : nullptr)

void finish_decode(InstrBuilder& b, Type t, int sources) {
  b.in.cls = OpClass::kHalf;
  if (!b.in.run) b.fail("unsupported type");
  same_type_operands(b, t, sources);
}

}  // namespace

void decode_half_arithmetic(InstrBuilder& b, int operation, Type t, int sources, bool ftz,
                            bool sat) {
  if (operation > 3) b.fail("unsupported type");
  b.in.mode = static_cast<uint8_t>(operation);
  b.in.flags |= (ftz ? kFtz : 0u) | (sat ? kSat : 0u);
  b.in.run = RNK_PICK(arithmetic);
  finish_decode(b, t, sources);
}

void decode_half_min_max(InstrBuilder& b, Type t) {
  b.in.run = RNK_PICK(extremum);
  finish_decode(b, t, 2);
}

void decode_half_function(InstrBuilder& b, Type t, double (*f)(double)) {
  b.in.imm = reinterpret_cast<int64_t>(f);
  b.in.run = RNK_PICK(function);
  finish_decode(b, t, 1);
}

}  // namespace rnk::emu
