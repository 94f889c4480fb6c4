// Integer arithmetic. add, sub, mul, mad, min, max, abs, neg and div share their rows with floats.
#include "ops.h"

namespace rnk::emu {
namespace {

using I128 = __int128;
using U128 = unsigned __int128;

template <class T>
using Unsigned = std::make_unsigned_t<T>;
// Arithmetic in the unsigned type, and at least 32 bits wide, so that nothing overflows.
template <class T>
using Wrap = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <class T>
using Twice =
    std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, I128, U128>,
                       std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <class T>
T high(T a, T b) {
  return static_cast<T>(static_cast<Twice<T>>(a) * static_cast<Twice<T>>(b) >> 8 * sizeof(T));
}

struct Add {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(Wrap<T>(a) + Wrap<T>(b));
  }
};
struct Sub {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(Wrap<T>(a) - Wrap<T>(b));
  }
};
struct MulLo {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(Wrap<T>(a) * Wrap<T>(b));
  }
};
struct MulHi {
  template <class T>
  static T run(T a, T b) {
    return high(a, b);
  }
};
struct MadLo {
  template <class T>
  static T run(T a, T b, T c) {
    return static_cast<T>(Wrap<T>(a) * Wrap<T>(b) + Wrap<T>(c));
  }
};
struct MadHi {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(high(a, b), c);
  }
};
struct Min {
  template <class T>
  static T run(T a, T b) {
    return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  static T run(T a, T b) {
    return a > b ? a : b;
  }
};
struct Abs {
  template <class T>
  static T run(T a) {
    return a < 0 ? static_cast<T>(0 - Wrap<T>(a)) : a;
  }
};
struct Neg {
  template <class T>
  static T run(T a) {
    return static_cast<T>(0 - Wrap<T>(a));
  }
};
struct Sad {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(c, a < b ? Sub::run(b, a) : Sub::run(a, b));
  }
};
// Division by zero gives all ones and remainder a on the hardware; INT_MIN / -1 wraps.
struct Div {
  template <class T>
  static T run(T a, T b) {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Neg::run(a);
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  static T run(T a, T b) {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
// Saturating add and sub exist for s32 alone.
struct AddSat {
  static int32_t run(int32_t a, int32_t b) {
    return static_cast<int32_t>(std::clamp<int64_t>(int64_t{a} + b, INT32_MIN, INT32_MAX));
  }
};
struct SubSat {
  static int32_t run(int32_t a, int32_t b) {
    return static_cast<int32_t>(std::clamp<int64_t>(int64_t{a} - b, INT32_MIN, INT32_MAX));
  }
};

template <class T>
void mul_wide(Warp& w, const Instr& in, uint32_t mask) {
  using W =
      std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                         Twice<T>>;
  map2<W, T, T>(w, in, mask, [](T a, T b) { return static_cast<W>(W(a) * W(b)); });
}
template <class T>
void mad_wide(Warp& w, const Instr& in, uint32_t mask) {
  using W =
      std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                         Twice<T>>;
  map3<W, T, T, W>(w, in, mask,
                   [](T a, T b, W c) { return Add::run(static_cast<W>(W(a) * W(b)), c); });
}

template <class Op>
void binary(InstrBuilder& b, Type t) {
  with_integer(t, [&](auto v) { b.in.run = exec2<Op, decltype(v)>; });
  same_type_operands(b, t, 2);
}

// d wider than the factors; mad's addend is as wide as d.
void wide_operands(InstrBuilder& b, Type t, bool has_addend) {
  bool s = is_signed(t);
  Type wide = size_of(t) == 2 ? (s ? Type::kS32 : Type::kU32) : (s ? Type::kS64 : Type::kU64);
  if (size_of(t) > 4) b.fail("unsupported type");
  b.reg(b.arg(0), size_of(wide));
  b.sources(1, {t, t});
  if (has_addend) b.source(b.arg(3), wide);
}

// add.cc, addc, sub.cc, subc, mad.lo.cc, madc: mode bit 0 writes the carry, bit 1 reads it.
template <class T>
void carry_chain(Warp& w, const Instr& in, uint32_t mask) {
  const T *a = w.src<T>(in.ops[1]), *b = w.src<T>(in.ops[2]);
  T* d = w.dst<T>(in.ops[0]);
  for (uint32_t m = mask; m; m &= m - 1) {
    int i = __builtin_ctz(m);
    U128 carry = in.mode & 2 ? w.carry >> i & 1 : 0, result;
    T x = a[i], y = b[i];
    if (in.mode2 == 1) {  // subtract
      result = U128(x) - y - carry;
    } else {
      if (in.mode2 == 2) x = static_cast<T>(U128(a[i]) * b[i]), y = w.src<T>(in.ops[3])[i];
      if (in.mode2 == 3)
        x = static_cast<T>(U128(a[i]) * b[i] >> 8 * sizeof(T)), y = w.src<T>(in.ops[3])[i];
      result = U128(x) + y + carry;
    }
    d[i] = static_cast<T>(result);
    uint32_t out = static_cast<uint32_t>(result >> 8 * sizeof(T)) & 1;
    if (in.mode & 1) w.carry = (w.carry & ~(1u << i)) | out << i;
  }
}

void decode_carry(InstrBuilder& b, bool reads, int operation) {
  b.in.mode = static_cast<uint8_t>((b.take("cc") ? 1 : 0) | (reads ? 2 : 0));
  b.in.mode2 = static_cast<uint8_t>(operation);
  Type t = b.take_type();
  if (operation == 3 && is_signed(t)) b.fail("unsupported signed mad.hi.cc");
  if (size_of(t) == 4)
    b.in.run = carry_chain<uint32_t>;
  else
    b.in.run = carry_chain<uint64_t>;
  same_type_operands(b, t, operation >= 2 ? 3 : 2);
}

template <class Op>
void decode_shared_binary(InstrBuilder& b, void (*as_float)(InstrBuilder&)) {
  Type t = b.peek_type();
  if (is_float(t)) return as_float(b);
  if (t == Type::kU16x2 || t == Type::kS16x2) return decode_packed16(b);
  binary<Op>(b, b.take_type());
}

void decode_add_sub(InstrBuilder& b, bool subtract) {
  if (b.statement().opcode.find(".cc") != std::string_view::npos)
    return decode_carry(b, false, subtract);
  if (!is_float(b.peek_type()) && b.take("sat")) {
    if (b.take_type() != Type::kS32) b.fail("unsupported type");
    b.in.run = subtract ? exec2<SubSat, int32_t> : exec2<AddSat, int32_t>;
    return same_type_operands(b, Type::kS32, 2);
  }
  if (subtract)
    decode_shared_binary<Sub>(b, decode_float_sub);
  else
    decode_shared_binary<Add>(b, decode_float_add);
}

void decode_add(InstrBuilder& b) { decode_add_sub(b, false); }
void decode_sub(InstrBuilder& b) { decode_add_sub(b, true); }
void decode_addc(InstrBuilder& b) { decode_carry(b, true, 0); }
void decode_subc(InstrBuilder& b) { decode_carry(b, true, 1); }
void decode_min(InstrBuilder& b) { decode_shared_binary<Min>(b, decode_float_min); }
void decode_max(InstrBuilder& b) { decode_shared_binary<Max>(b, decode_float_max); }
void decode_rem(InstrBuilder& b) { binary<Rem>(b, b.take_type()); }
void decode_div(InstrBuilder& b) { decode_shared_binary<Div>(b, decode_float_div); }

void decode_mul(InstrBuilder& b) {
  if (is_float(b.peek_type())) return decode_float_mul(b);
  int part = b.take_any({"lo", "hi", "wide"});
  Type t = b.take_type();
  if (part == 2) {
    with_integer(t, [&](auto v) {
      if constexpr (sizeof v < 8) b.in.run = mul_wide<decltype(v)>;
    });
    b.want_args(3, 3);
    return wide_operands(b, t, false);
  }
  if (part < 0) b.fail("needs .lo, .hi or .wide");
  if (part == 0)
    binary<MulLo>(b, t);
  else
    binary<MulHi>(b, t);
}

void decode_mad(InstrBuilder& b) {
  if (is_float(b.peek_type())) return decode_float_fma(b);
  int part = b.take_any({"lo", "hi", "wide"});
  if (part < 0) b.fail("needs .lo, .hi or .wide");
  if (b.statement().opcode.find(".cc") != std::string_view::npos)
    return decode_carry(b, false, 2 + part);
  Type t = b.take_type();
  if (part == 2) {
    with_integer(t, [&](auto v) {
      if constexpr (sizeof v < 8) b.in.run = mad_wide<decltype(v)>;
    });
    b.want_args(4, 4);
    return wide_operands(b, t, true);
  }
  with_integer(t, [&](auto v) {
    using T = decltype(v);
    b.in.run = part == 0 ? exec3<MadLo, T> : exec3<MadHi, T>;
  });
  same_type_operands(b, t, 3);
}

void decode_madc(InstrBuilder& b) {
  int part = b.take_any({"lo", "hi"});
  if (part < 0) b.fail("needs .lo or .hi");
  decode_carry(b, true, 2 + part);
}

void decode_sad(InstrBuilder& b) {
  Type t = b.take_type();
  with_integer(t, [&](auto v) { b.in.run = exec3<Sad, decltype(v)>; });
  same_type_operands(b, t, 3);
}

void decode_abs(InstrBuilder& b) {
  if (is_float(b.peek_type())) return decode_float_abs(b);
  Type t = b.take_type();
  with_integer(t, [&](auto v) { b.in.run = exec1<Abs, decltype(v)>; });
  same_type_operands(b, t, 1);
}

void decode_neg(InstrBuilder& b) {
  if (is_float(b.peek_type())) return decode_float_neg(b);
  Type t = b.take_type();
  with_integer(t, [&](auto v) { b.in.run = exec1<Neg, decltype(v)>; });
  same_type_operands(b, t, 1);
}

int64_t part_of(uint32_t word, int index, int bits, bool sign) {
  uint32_t v = word >> (index * bits) & ((1u << bits) - 1);
  if (sign && v >> (bits - 1)) return static_cast<int64_t>(v) - (int64_t{1} << bits);
  return v;
}

// dp4a and dp2a; mode: bit 0 a signed, bit 1 b signed, bit 2 dp2a, bit 3 upper half of b
void dot_bytes(Warp& w, const Instr& in, uint32_t mask) {
  int mode = in.mode;
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, mask, [mode](uint32_t a, uint32_t x, uint32_t c) {
        int64_t sum = 0;
        bool pairs = mode & 4;
        for (int i = 0; i < (pairs ? 2 : 4); ++i)
          sum += part_of(a, i, pairs ? 16 : 8, mode & 1) *
                 part_of(x, i + (mode & 8 ? 2 : 0), 8, mode & 2);
        return c + static_cast<uint32_t>(sum);
      });
}

void decode_dp(InstrBuilder& b) {
  bool pairs = b.statement().opcode.substr(0, 4) == "dp2a";
  int part = pairs ? b.take_any({"lo", "hi"}) : 0;
  Type ta = b.take_type(), tb = b.take_type();
  b.in.mode = static_cast<uint8_t>((is_signed(ta) ? 1 : 0) | (is_signed(tb) ? 2 : 0) |
                                   (pairs ? 4 : 0) | (part == 1 ? 8 : 0));
  b.in.run = dot_bytes;
  same_type_operands(b, Type::kB32, 3);
}

// mul24 and mad24: 24-bit factors; mode 0 keeps bits 0-31 of the product, 1 bits 16-47.
template <class T>
void mul24(Warp& w, const Instr& in, uint32_t mask) {
  auto low24 = [](T v) {
    return static_cast<int64_t>(static_cast<T>(static_cast<uint32_t>(v) << 8) >> 8);
  };
  const T *a = w.src<T>(in.ops[1]), *b = w.src<T>(in.ops[2]);
  const T* c = in.mode2 ? w.src<T>(in.ops[3]) : nullptr;
  alignas(64) T r[32];
  for (int i = 0; i < 32; ++i) {
    int64_t product = low24(a[i]) * low24(b[i]);
    r[i] = static_cast<T>(static_cast<uint32_t>(in.mode ? product >> 16 : product) +
                          (c ? static_cast<uint32_t>(c[i]) : 0));
  }
  blend(w.dst<T>(in.ops[0]), r, mask);
}

void decode_mul24(InstrBuilder& b) {
  int part = b.take_any({"lo", "hi"});
  if (part < 0) b.fail("needs .lo or .hi");
  b.in.mode = static_cast<uint8_t>(part);
  b.in.mode2 = b.statement().opcode.substr(0, 5) == "mad24";
  Type t = b.take_type();
  b.in.run = is_signed(t) ? mul24<int32_t> : mul24<uint32_t>;
  same_type_operands(b, t, b.in.mode2 ? 3 : 2);
}

}  // namespace

const OpRow kIntegerRows[] = {
    {"add", OpClass::kInteger, decode_add},     {"sub", OpClass::kInteger, decode_sub},
    {"addc", OpClass::kInteger, decode_addc},   {"subc", OpClass::kInteger, decode_subc},
    {"mul", OpClass::kInteger, decode_mul},     {"mad", OpClass::kInteger, decode_mad},
    {"madc", OpClass::kInteger, decode_madc},   {"sad", OpClass::kInteger, decode_sad},
    {"min", OpClass::kInteger, decode_min},     {"max", OpClass::kInteger, decode_max},
    {"div", OpClass::kInteger, decode_div},     {"rem", OpClass::kInteger, decode_rem},
    {"abs", OpClass::kInteger, decode_abs},     {"neg", OpClass::kInteger, decode_neg},
    {"dp4a", OpClass::kInteger, decode_dp},     {"dp2a", OpClass::kInteger, decode_dp},
    {"mul24", OpClass::kInteger, decode_mul24}, {"mad24", OpClass::kInteger, decode_mul24},
    {nullptr, OpClass::kInteger, nullptr}};

}  // namespace rnk::emu
