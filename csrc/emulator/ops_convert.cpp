// cvt between integers, f16, bf16, tf32, f32 and f64; cvta; isspacep.
#include "float_formats.h"
#include "ops.h"

namespace rnk::emu {
namespace {

uint64_t sign_extend(uint64_t v, Type t) {
  switch (t) {
    case Type::kS8:
      return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(v)));
    case Type::kS16:
      return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int16_t>(v)));
    case Type::kS32:
      return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(v)));
    case Type::kU8:
    case Type::kB8:
      return static_cast<uint8_t>(v);
    case Type::kU16:
    case Type::kB16:
      return static_cast<uint16_t>(v);
    case Type::kU32:
    case Type::kB32:
      return static_cast<uint32_t>(v);
    default:
      return v;
  }
}

struct IntRange {
  __int128 low, high;
};
IntRange range_of(Type t) {
  int bits = 8 * size_of(t);
  if (is_signed(t)) return {-(__int128{1} << (bits - 1)), (__int128{1} << (bits - 1)) - 1};
  return {0, (__int128{1} << bits) - 1};
}

__int128 integer_value(uint64_t v, Type t) {
  return is_signed(t) ? static_cast<__int128>(static_cast<int64_t>(v)) : static_cast<__int128>(v);
}

float flush(float f) { return std::fabs(f) < 0x1p-126f ? std::copysign(0.0f, f) : f; }

double load_float(uint64_t v, Type t, bool ftz) {
  switch (t) {
    case Type::kF16:
      return half_to_float(static_cast<uint16_t>(v));
    case Type::kBF16:
      return bf16_to_float(static_cast<uint16_t>(v));
    case Type::kF64:
      return bits_double(v);
    default: {
      float f = bits_float(static_cast<uint32_t>(v));
      return ftz ? flush(f) : f;
    }
  }
}

double round_to_integer(double d, Round mode) {
  switch (mode) {
    case Round::kZero:
      return std::trunc(d);
    case Round::kDown:
      return std::floor(d);
    case Round::kUp:
      return std::ceil(d);
    default:
      return std::nearbyint(d);
  }
}

const FloatFormat& format_of(Type t) {
  switch (t) {
    case Type::kF16:
    case Type::kF16x2:
      return kHalfFormat;
    case Type::kBF16:
    case Type::kBF16x2:
      return kBf16Format;
    case Type::kTF32:
      return kTf32Format;
    default:
      return kFloatFormat;
  }
}

// d is exact or rounded to odd.
uint64_t store_float(double d, Type t, Round mode, uint32_t flags) {
  if (flags & kSat) d = d > 0 ? std::min(d, 1.0) : 0.0;
  if (flags & kRelu && !(d > 0) && d == d) d = 0;
  if (t == Type::kF64) return double_bits(d);
  const FloatFormat& f = format_of(t);
  uint32_t r = round_to(d, f, mode);
  uint32_t infinity = ((1u << f.exponent) - 1) << f.mantissa;
  uint32_t magnitude = (1u << (f.mantissa + f.exponent)) - 1;
  if (flags & kSatFinite && (r & magnitude) == infinity) r -= 1;
  if (t == Type::kTF32) return d == d ? r << 13 : 0x7FFFFFFF;
  if (t == Type::kF32 && flags & kFtz) return float_bits(flush(bits_float(r)));
  return r;
}

// A 64-bit integer as a double rounded to odd.
double odd_double(__int128 v) {
  auto d = static_cast<double>(v);
  __int128 error = v - static_cast<__int128>(d);
  return to_odd(d, static_cast<double>(error));
}

uint64_t float_to_integer(double d, const Instr& in) {
  if (d != d) {
    bool wide = in.type2 == Type::kF64 || size_of(in.type) == 8;
    return wide ? uint64_t{1} << (8 * size_of(in.type) - 1) : 0;
  }
  double r = round_to_integer(d, static_cast<Round>(in.mode));
  IntRange range = range_of(in.type);
  if (r <= static_cast<double>(range.low)) return static_cast<uint64_t>(range.low);
  if (r >= static_cast<double>(range.high)) return static_cast<uint64_t>(range.high);
  return static_cast<uint64_t>(static_cast<__int128>(r));
}

uint64_t integer_to_double(__int128 v, Round mode) {
  auto d = static_cast<double>(v);
  auto error = v - static_cast<__int128>(d);
  bool up = mode == Round::kUp || (mode == Round::kZero && v < 0);
  bool down = mode == Round::kDown || (mode == Round::kZero && v > 0);
  if (error > 0 && up) d = std::nextafter(d, INFINITY);
  if (error < 0 && down) d = std::nextafter(d, -INFINITY);
  return double_bits(d);
}

uint64_t convert(uint64_t v, const Instr& in) {
  auto mode = static_cast<Round>(in.mode);
  bool to_float = is_float(in.type);
  if (!is_float(in.type2)) {
    v = sign_extend(v, in.type2);
    __int128 n = integer_value(v, in.type2);
    if (to_float) {
      if (in.flags & kSat) n = n > 0 ? 1 : 0;
      if (in.type == Type::kF64) return integer_to_double(n, mode);
      return store_float(odd_double(n), in.type, mode, in.flags);
    }
    if (in.flags & kSat) {
      IntRange r = range_of(in.type);
      v = static_cast<uint64_t>(n < r.low ? r.low : n > r.high ? r.high : n);
    }
    return sign_extend(v, in.type);
  }
  double d = load_float(v, in.type2, in.flags & kFtz);
  if (!to_float) return sign_extend(float_to_integer(d, in), in.type);
  if (in.mode2) d = round_to_integer(d, mode);
  return store_float(d, in.type, in.mode2 ? Round::kNearestEven : mode, in.flags);
}

void cvt(Warp& w, const Instr& in, uint32_t mask) {
  uint64_t v[32];
  w.read_lanes(in.ops[1], v);
  for (uint32_t m = mask; m; m &= m - 1) {
    int i = __builtin_ctz(m);
    v[i] = convert(v[i], in);
  }
  w.write_lanes(in.ops[0], mask, v);
}

// Integers of equal signedness rules, the commonest conversions.
template <class D, class S, class From>
void cvt_integer(Warp& w, const Instr& in, uint32_t mask) {
  map1<D, S>(w, in, mask, [](S a) { return static_cast<D>(static_cast<From>(a)); });
}
template <uint16_t (*F)(float)>
void cvt_to_16(Warp& w, const Instr& in, uint32_t mask) {
  map1<uint16_t, float>(w, in, mask, [](float a) { return F(a); });
}
template <float (*F)(uint16_t)>
void cvt_from_16(Warp& w, const Instr& in, uint32_t mask) {
  map1<float, uint16_t>(w, in, mask, [](uint16_t a) { return F(a); });
}
template <uint16_t (*F)(float)>
void cvt_pair(Warp& w, const Instr& in, uint32_t mask) {
  map2<uint32_t, float, float>(
      w, in, mask, [](float a, float b) { return static_cast<uint32_t>(F(a)) << 16 | F(b); });
}
template <class D, class S>
void cvt_native(Warp& w, const Instr& in, uint32_t mask) {
  map1<D, S>(w, in, mask, [](S a) {
    D r = static_cast<D>(a);
    if constexpr (std::is_same_v<D, float>)
      return r == r ? r : bits_float(0x7FFFFFFF);
    else
      return r;
  });
}

void pair(Warp& w, const Instr& in, uint32_t mask) {
  map2<uint32_t, float, float>(w, in, mask, [&](float a, float b) {
    auto one = [&](float f) {
      return static_cast<uint32_t>(store_float(f, in.type, static_cast<Round>(in.mode), in.flags));
    };
    return one(a) << 16 | one(b);
  });
}

Handler fast_convert(const Instr& in, int d_width, int s_width) {
  if (in.flags || in.mode2) return nullptr;
  Type d = in.type, s = in.type2;
  bool nearest = in.mode == static_cast<uint8_t>(Round::kNearestEven);
  bool u32 = s == Type::kU32 || s == Type::kB32;
  if (d_width == 8 && s_width == 4 && size_of(d) == 8 && !is_float(d)) {
    if (u32) return cvt_integer<uint64_t, uint32_t, uint32_t>;
    if (s == Type::kS32) return cvt_integer<uint64_t, uint32_t, int32_t>;
  }
  if (d_width == 4 && s_width == 8 && size_of(d) == 4 && size_of(s) == 8 && !is_float(d) &&
      !is_float(s))
    return cvt_integer<uint32_t, uint64_t, uint64_t>;
  if (d == Type::kF32 && s_width == 2 && s == Type::kF16) return cvt_from_16<half_to_float>;
  if (d == Type::kF32 && s_width == 2 && s == Type::kBF16) return cvt_from_16<bf16_to_float>;
  if (!nearest) return nullptr;
  if (s == Type::kF32 && d_width == 2 && d == Type::kF16) return cvt_to_16<float_to_half>;
  if (s == Type::kF32 && d_width == 2 && d == Type::kBF16) return cvt_to_16<float_to_bf16>;
  if (d == Type::kF32 && s == Type::kS32 && s_width == 4) return cvt_native<float, int32_t>;
  if (d == Type::kF32 && s == Type::kU32 && s_width == 4) return cvt_native<float, uint32_t>;
  if (d == Type::kF64 && s == Type::kF32) return cvt_native<double, float>;
  if (d == Type::kF32 && s == Type::kF64) return cvt_native<float, double>;
  return nullptr;
}

void decode_pair(InstrBuilder& b) {
  if (b.take_type() != Type::kF32) b.fail("unsupported type");
  bool nearest = b.in.mode == 0 && !b.in.flags;
  b.in.run = !nearest                    ? pair
             : b.in.type == Type::kF16x2 ? cvt_pair<float_to_half>
                                         : cvt_pair<float_to_bf16>;
  b.want_args(3, 3);
  b.reg(b.arg(0), 4);
  b.sources(1, {Type::kF32, Type::kF32});
}

void decode_cvt(InstrBuilder& b) {
  int to_integer = b.take_any({"rni", "rzi", "rmi", "rpi"});
  Round round =
      to_integer >= 0 ? static_cast<Round>(to_integer) : b.take_round(Round::kNearestEven);
  b.in.mode = static_cast<uint8_t>(round);
  b.flag("ftz", kFtz);
  b.flag("sat", kSat);
  b.flag("satfinite", kSatFinite);
  b.flag("relu", kRelu);
  b.in.type = b.take_type();
  if (b.in.type == Type::kF16x2 || b.in.type == Type::kBF16x2) return decode_pair(b);
  b.in.type2 = b.take_type();
  bool from_float = is_float(b.in.type2), to_float = is_float(b.in.type);
  if (from_float && !to_float && to_integer < 0) b.fail("needs an integer rounding");
  if (round == Round::kNearestAway && b.in.type != Type::kTF32) b.fail("unsupported rounding");
  b.in.mode2 = to_integer >= 0 && to_float;
  if (b.in.type == Type::kF64 && b.in.type2 == Type::kF64 && !b.in.mode2 && !b.in.flags)
    b.fail("unsupported form");
  b.want_args(2, 2);
  b.any_width(b.arg(0), std::max(2, size_of(b.in.type)));
  b.any_width(b.arg(1), std::max(2, size_of(b.in.type2)));
  const auto& ops = b.decoder().kernel().operands;
  b.in.run = fast_convert(b.in, ops[ops.size() - 2].width, ops.back().width);
  if (!b.in.run) b.in.run = cvt;
}

// cvta{.to}.space: shared and local addresses gain or lose their tag; global ones are the same.
void cvta(Warp& w, const Instr& in, uint32_t mask) {
  uint64_t v[32];
  w.read_lanes(in.ops[1], v);
  uint64_t tag = in.space == Space::kShared  ? kSharedTag
                 : in.space == Space::kLocal ? kLocalTag
                 : in.space == Space::kParam ? kParamTag
                                             : 0;
  for (uint64_t& a : v) {
    if (!tag) continue;
    if (in.mode)
      a &= kOffsetMask;
    else if (a >> kTagShift == 0)
      a |= tag << kTagShift;
  }
  w.write_lanes(in.ops[0], mask, v);
}
void decode_cvta(InstrBuilder& b) {
  b.in.mode = b.take("to");
  b.in.space = b.take_space();
  Type t = b.take_type();
  if (size_of(t) != 8) b.fail("only 64-bit addresses");
  b.in.run = cvta;
  same_type_operands(b, Type::kB64, 1);
}

void isspacep(Warp& w, const Instr& in, uint32_t mask) {
  const uint64_t* a = w.src<uint64_t>(in.ops[1]);
  uint64_t want = in.space == Space::kShared  ? kSharedTag
                  : in.space == Space::kLocal ? kLocalTag
                  : in.space == Space::kParam ? kParamTag
                                              : 0;
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(a[i] >> kTagShift == want) << i;
  w.set_predicate(in.ops[0], mask, bits);
}
void decode_isspacep(InstrBuilder& b) {
  b.in.space = b.take_space();
  b.in.run = isspacep;
  b.want_args(2, 2);
  b.pred(b.arg(0));
  b.source(b.arg(1), Type::kB64);
}

}  // namespace

const OpRow kConvertRows[] = {{"cvt", OpClass::kConvert, decode_cvt},
                              {"cvta", OpClass::kMove, decode_cvta},
                              {"isspacep", OpClass::kPredicate, decode_isspacep},
                              {nullptr, OpClass::kConvert, nullptr}};

}  // namespace rnk::emu
