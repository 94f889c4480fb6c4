// f32 and f64 arithmetic. Round-to-nearest runs natively; other f32 modes go through double rounded
// to odd, other f64 modes through the host's rounding mode. f32 NaN results are canonical.
#include <cfenv>

#include "float_formats.h"
#include "ops.h"
#include "ops_half.h"

namespace rnk::emu {
namespace {

float flush(float f) { return std::fabs(f) < 0x1p-126f ? std::copysign(0.0f, f) : f; }
float canonical(float f) { return f == f ? f : bits_float(0x7FFFFFFF); }
double canonical(double d) { return d; }
template <bool kFtz, class T>
T flushed(T v) {
  if constexpr (kFtz)
    return flush(v);
  else
    return v;
}
template <class T>
T saturate(T v) {
  return v > T{0} ? (v < T{1} ? v : T{1}) : T{0};
}

struct Add {
  template <class T>
  static T run(T a, T b) {
    return a + b;
  }
};
struct Sub {
  template <class T>
  static T run(T a, T b) {
    return a - b;
  }
};
struct Mul {
  template <class T>
  static T run(T a, T b) {
    return a * b;
  }
};
struct Div {
  template <class T>
  static T run(T a, T b) {
    return a / b;
  }
};
struct Fma {
  template <class T>
  static T run(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct Sqrt {
  template <class T>
  static T run(T a) {
    return std::sqrt(a);
  }
};
struct Rcp {
  template <class T>
  static T run(T a) {
    return T{1} / a;
  }
};

template <class Op, class T, bool kFtz, bool kSat>
void float1(Warp& w, const Instr& in, uint32_t mask) {
  map1<T, T>(w, in, mask, [](T a) {
    T r = canonical(flushed<kFtz>(Op::run(flushed<kFtz>(a))));
    return kSat ? saturate(r) : r;
  });
}
template <class Op, class T, bool kFtz, bool kSat>
void float2(Warp& w, const Instr& in, uint32_t mask) {
  map2<T, T, T>(w, in, mask, [](T a, T b) {
    T r = canonical(flushed<kFtz>(Op::run(flushed<kFtz>(a), flushed<kFtz>(b))));
    return kSat ? saturate(r) : r;
  });
}
template <class Op, class T, bool kFtz, bool kSat>
void float3(Warp& w, const Instr& in, uint32_t mask) {
  map3<T, T, T, T>(w, in, mask, [](T a, T b, T c) {
    T r = canonical(flushed<kFtz>(Op::run(flushed<kFtz>(a), flushed<kFtz>(b), flushed<kFtz>(c))));
    return kSat ? saturate(r) : r;
  });
}

template <class Op>
Handler pick1(Type t, bool ftz) {
  if (t == Type::kF64) return float1<Op, double, false, false>;
  return ftz ? float1<Op, float, true, false> : float1<Op, float, false, false>;
}
template <class Op>
Handler pick2(Type t, bool ftz, bool sat) {
  if (t == Type::kF64) return float2<Op, double, false, false>;
  if (ftz) return sat ? float2<Op, float, true, true> : float2<Op, float, true, false>;
  return sat ? float2<Op, float, false, true> : float2<Op, float, false, false>;
}
template <class Op>
Handler pick3(Type t, bool ftz, bool sat) {
  if (t == Type::kF64) return float3<Op, double, false, false>;
  if (ftz) return sat ? float3<Op, float, true, true> : float3<Op, float, true, false>;
  return sat ? float3<Op, float, false, true> : float3<Op, float, false, false>;
}

// Directed rounding; in.mode is the operation, in.mode2 the Round.
enum Operation : uint8_t { kAdd, kSub, kMul, kFma, kDiv, kSqrt, kRcp };

double exact_odd(int operation, double a, double b, double c) {
  switch (operation) {
    case kAdd:
      return add_odd(a, b);
    case kSub:
      return add_odd(a, -b);
    case kMul:
      return a * b;
    case kFma:
      return fma_odd(a, b, c);
    case kDiv:
      return div_odd(a, b);
    case kSqrt:
      return sqrt_odd(a);
    default:
      return div_odd(1, a);
  }
}

// Whether a zero result is a sum of opposite signs, which is -0 when rounding down.
bool cancels(int operation, const float* v) {
  bool a = std::signbit(v[0]), b = std::signbit(v[1]), c = std::signbit(v[2]);
  if (operation == kAdd) return a != b;
  if (operation == kSub) return a == b;
  return operation == kFma && (a != b) != c;
}

void directed32(Warp& w, const Instr& in, uint32_t mask) {
  const float* s[3];
  for (int k = 0; k < 3; ++k) s[k] = w.src<float>(in.ops[k + 1 < in.op_count ? k + 1 : 1]);
  bool ftz = in.flags & kFtz;
  alignas(64) float r[32];
  for (int i = 0; i < 32; ++i) {
    float v[3];
    for (int k = 0; k < 3; ++k) v[k] = ftz ? flush(s[k][i]) : s[k][i];
    double d = exact_odd(in.mode, v[0], v[1], v[2]);
    r[i] = bits_float(round_to(d, kFloatFormat, static_cast<Round>(in.mode2)));
    if (d == 0 && in.mode2 == static_cast<uint8_t>(Round::kDown) && cancels(in.mode, v))
      r[i] = -0.0f;
    if (ftz) r[i] = flush(r[i]);
    if (in.flags & kSat) r[i] = saturate(r[i]);
  }
  blend(w.dst<float>(in.ops[0]), r, mask);
}

__attribute__((noinline)) double host_operation(int operation, volatile double a, volatile double b,
                                                volatile double c) {
  switch (operation) {
    case kAdd:
      return a + b;
    case kSub:
      return a - b;
    case kMul:
      return a * b;
    case kFma:
      return std::fma(a, b, c);
    case kDiv:
      return a / b;
    case kSqrt:
      return std::sqrt(a);
    default:
      return 1 / a;
  }
}

void directed64(Warp& w, const Instr& in, uint32_t mask) {
  static constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  const double* s[3];
  for (int k = 0; k < 3; ++k) s[k] = w.src<double>(in.ops[k + 1 < in.op_count ? k + 1 : 1]);
  alignas(64) double r[32];
  int before = std::fegetround();
  std::fesetround(kModes[in.mode2]);
  for (int i = 0; i < 32; ++i) r[i] = host_operation(in.mode, s[0][i], s[1][i], s[2][i]);
  std::fesetround(before);
  blend(w.dst<double>(in.ops[0]), r, mask);
}

// Modifiers and operands of an arithmetic opcode; nearest is its round-to-nearest handler maker.
template <class Pick>
void decode_arithmetic(InstrBuilder& b, Operation op, int sources, Pick nearest) {
  Round round = b.take_round(Round::kNearestEven);
  bool approximate = op >= kDiv && b.take_any({"approx", "full"}) >= 0;
  bool ftz = b.take("ftz"), sat = op < kDiv && b.take("sat");
  Type t = b.take_type();
  if (size_of(t) == 2 || t == Type::kF16x2 || t == Type::kBF16x2)
    return decode_half_arithmetic(b, op, t, sources, ftz, sat);
  if (t != Type::kF32 && t != Type::kF64) b.fail("unsupported type");
  b.in.cls = t == Type::kF64 ? OpClass::kFp64 : OpClass::kFp32;
  b.in.mode = op;
  b.in.mode2 = static_cast<uint8_t>(round);
  b.in.flags |= (ftz ? kFtz : 0u) | (sat ? kSat : 0u);
  if (round == Round::kNearestAway) b.fail("unsupported rounding");
  if (b.in.flags & kRelu) b.fail("unsupported modifier '.relu'");
  if (round == Round::kNearestEven || approximate)
    b.in.run = nearest(t, ftz, sat);
  else
    b.in.run = t == Type::kF64 ? directed64 : directed32;
  same_type_operands(b, t, sources);
}

struct Extremum {
  template <class T>
  static T run(T a, T b, bool smaller, bool nan) {
    if (a != a || b != b)
      return nan || (a != a && b != b) ? canonical(a != a ? a : b) : a != a ? b : a;
    if (a == b) return std::signbit(a) == smaller ? a : b;  // -0 is below +0
    return (a < b) == smaller ? a : b;
  }
};

template <class T>
void min_max(Warp& w, const Instr& in, uint32_t mask) {
  bool smaller = in.mode, nan = in.flags & kNanResult, ftz = in.flags & kFtz;
  bool xorsign = in.flags & kXorSign;
  map2<T, T, T>(w, in, mask, [=](T a, T b) {
    if (sizeof(T) == 4 && ftz)
      a = static_cast<T>(flush(static_cast<float>(a))),
      b = static_cast<T>(flush(static_cast<float>(b)));
    bool sign = std::signbit(a) != std::signbit(b);
    if (xorsign) a = std::fabs(a), b = std::fabs(b);
    T r = Extremum::run(a, b, smaller, nan);
    return xorsign && r == r ? std::copysign(r, sign ? T{-1} : T{1}) : r;
  });
}

void decode_min_max(InstrBuilder& b, bool smaller) {
  b.in.mode = smaller;
  b.flag("ftz", kFtz);
  b.flag("NaN", kNanResult);
  if (b.take("xorsign")) {
    if (!b.take("abs")) b.fail("needs .abs");
    b.in.flags |= kXorSign;
  }
  Type t = b.take_type();
  if (t != Type::kF32 && t != Type::kF64) return decode_half_min_max(b, t);
  b.in.cls = t == Type::kF64 ? OpClass::kFp64 : OpClass::kFp32;
  b.in.run = t == Type::kF64 ? min_max<double> : min_max<float>;
  same_type_operands(b, t, 2);
}

// abs, neg: sign-bit operations on every width; mode 1 is abs.
template <class U>
void sign_bits(Warp& w, const Instr& in, uint32_t mask) {
  auto signs = static_cast<U>(in.imm);
  bool abs = in.mode, ftz = in.flags & kFtz;
  map1<U, U>(w, in, mask, [=](U a) {
    if constexpr (sizeof(U) == 4) {
      if (ftz) a = float_bits(flush(bits_float(a)));
    }
    return static_cast<U>(abs ? a & ~signs : a ^ signs);
  });
}
void decode_sign(InstrBuilder& b, bool abs) {
  b.flag("ftz", kFtz);
  Type t = b.take_type();
  bool packed = t == Type::kF16x2 || t == Type::kBF16x2;
  b.in.mode = abs;
  b.in.imm = static_cast<int64_t>(packed ? 0x80008000 : uint64_t{1} << (8 * size_of(t) - 1));
  b.in.cls = t == Type::kF64 ? OpClass::kFp64 : t == Type::kF32 ? OpClass::kFp32 : OpClass::kHalf;
  with_bits(t, [&](auto v) { b.in.run = sign_bits<decltype(v)>; });
  same_type_operands(b, t, 1);
}

template <class T>
void copysign(Warp& w, const Instr& in, uint32_t mask) {
  map2<T, T, T>(w, in, mask, [](T a, T b) { return std::copysign(b, a); });
}
void decode_copysign(InstrBuilder& b) {
  Type t = b.take_type();
  b.in.cls = t == Type::kF64 ? OpClass::kFp64 : OpClass::kFp32;
  b.in.run = t == Type::kF64 ? copysign<double> : copysign<float>;
  same_type_operands(b, t, 2);
}

void testp(Warp& w, const Instr& in, uint32_t mask) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) {
    double v;
    bool f32 = in.type == Type::kF32;
    if (f32)
      v = w.src<float>(in.ops[1])[i];
    else
      v = w.src<double>(in.ops[1])[i];
    int c = f32 ? std::fpclassify(w.src<float>(in.ops[1])[i]) : std::fpclassify(v);
    bool r = in.mode == 0   ? c != FP_NAN && c != FP_INFINITE
             : in.mode == 1 ? c == FP_INFINITE
             : in.mode == 2 ? c != FP_NAN
             : in.mode == 3 ? c == FP_NAN
             : in.mode == 4 ? c == FP_NORMAL
                            : c == FP_SUBNORMAL;
    bits |= static_cast<uint32_t>(r) << i;
  }
  w.set_predicate(in.ops[0], mask, bits);
}
void decode_testp(InstrBuilder& b) {
  int kind = b.take_any({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (kind < 0) b.fail("unknown test");
  b.in.mode = static_cast<uint8_t>(kind);
  b.in.type = b.take_type();
  b.in.run = testp;
  b.pred(b.arg(0));
  b.source(b.arg(1), b.in.type);
}

void decode_sqrt(InstrBuilder& b) {
  decode_arithmetic(b, kSqrt, 1, [](Type t, bool ftz, bool) { return pick1<Sqrt>(t, ftz); });
}
void decode_rcp(InstrBuilder& b) {
  decode_arithmetic(b, kRcp, 1, [](Type t, bool ftz, bool) { return pick1<Rcp>(t, ftz); });
}

// The approximate functions are computed in double and rounded once: closer than the hardware.
template <double (*F)(double), bool kFtz>
void approximate(Warp& w, const Instr& in, uint32_t mask) {
  map1<float, float>(w, in, mask, [](float a) {
    return canonical(flushed<kFtz>(static_cast<float>(F(flushed<kFtz>(a)))));
  });
}
double ex2(double x) { return std::exp2(x); }
double lg2(double x) { return std::log2(x); }
double sine(double x) { return std::sin(x); }
double cosine(double x) { return std::cos(x); }
double tangent(double x) { return std::tanh(x); }
double rsqrt(double x) { return 1 / std::sqrt(x); }
struct Rsqrt64 {
  static double run(double x) { return 1 / std::sqrt(x); }
};

template <double (*F)(double)>
void decode_approximate(InstrBuilder& b) {
  b.take("approx");
  bool ftz = b.take("ftz");
  Type t = b.take_type();
  if (t == Type::kF64 && F == rsqrt)
    b.in.run = exec1<Rsqrt64, double>;
  else if (t == Type::kF32)
    b.in.run = ftz ? approximate<F, true> : approximate<F, false>;
  else if (F == ex2 || F == tangent)
    return decode_half_function(b, t, F);
  else
    b.fail("unsupported type");
  same_type_operands(b, t, 1);
}

}  // namespace

void decode_float_add(InstrBuilder& b) { decode_arithmetic(b, kAdd, 2, pick2<Add>); }
void decode_float_sub(InstrBuilder& b) { decode_arithmetic(b, kSub, 2, pick2<Sub>); }
void decode_float_mul(InstrBuilder& b) { decode_arithmetic(b, kMul, 2, pick2<Mul>); }
void decode_float_div(InstrBuilder& b) { decode_arithmetic(b, kDiv, 2, pick2<Div>); }
void decode_float_fma(InstrBuilder& b) {
  b.flag("relu", kRelu);
  decode_arithmetic(b, kFma, 3, pick3<Fma>);
}
void decode_float_min(InstrBuilder& b) { decode_min_max(b, true); }
void decode_float_max(InstrBuilder& b) { decode_min_max(b, false); }
void decode_float_abs(InstrBuilder& b) { decode_sign(b, true); }
void decode_float_neg(InstrBuilder& b) { decode_sign(b, false); }

const OpRow kFloatRows[] = {{"fma", OpClass::kFp32, decode_float_fma},
                            {"copysign", OpClass::kFp32, decode_copysign},
                            {"testp", OpClass::kPredicate, decode_testp},
                            {"sqrt", OpClass::kSpecialFunction, decode_sqrt},
                            {"rcp", OpClass::kSpecialFunction, decode_rcp},
                            {"rsqrt", OpClass::kSpecialFunction, decode_approximate<rsqrt>},
                            {"ex2", OpClass::kSpecialFunction, decode_approximate<ex2>},
                            {"lg2", OpClass::kSpecialFunction, decode_approximate<lg2>},
                            {"sin", OpClass::kSpecialFunction, decode_approximate<sine>},
                            {"cos", OpClass::kSpecialFunction, decode_approximate<cosine>},
                            {"tanh", OpClass::kSpecialFunction, decode_approximate<tangent>},
                            {nullptr, OpClass::kFp32, nullptr}};

}  // namespace rnk::emu
