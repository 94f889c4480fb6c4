// Bits: logic (also on predicates), shifts, fields, permutes, counts; packed 16-bit integers.
#include "ops.h"

namespace rnk::emu {
namespace {

struct And {
  template <class T>
  static T run(T a, T b) {
    return a & b;
  }
};
struct Or {
  template <class T>
  static T run(T a, T b) {
    return a | b;
  }
};
struct Xor {
  template <class T>
  static T run(T a, T b) {
    return a ^ b;
  }
};
struct Not {
  template <class T>
  static T run(T a) {
    return static_cast<T>(~a);
  }
};
struct Cnot {
  template <class T>
  static T run(T a) {
    return a == 0;
  }
};

template <class Op>
void pred2(Warp& w, const Instr& in, uint32_t mask) {
  w.set_predicate(in.ops[0], mask, Op::run(w.predicate(in.ops[1]), w.predicate(in.ops[2])));
}
void pred_not(Warp& w, const Instr& in, uint32_t mask) {
  w.set_predicate(in.ops[0], mask, ~w.predicate(in.ops[1]));
}

template <class Op>
void decode_logic(InstrBuilder& b) {
  Type t = b.take_type();
  if (t == Type::kPred) {
    b.in.run = pred2<Op>;
    b.in.cls = OpClass::kPredicate;
    b.want_args(3, 3);
    for (size_t i = 0; i < 3; ++i) b.pred(b.arg(i));
    return;
  }
  with_bits(t, [&](auto v) { b.in.run = exec2<Op, decltype(v)>; });
  same_type_operands(b, t, 2);
}

void decode_not(InstrBuilder& b) {
  Type t = b.take_type();
  if (t == Type::kPred) {
    b.in.run = pred_not;
    b.in.cls = OpClass::kPredicate;
    b.want_args(2, 2);
    b.pred(b.arg(0));
    return b.pred(b.arg(1));
  }
  with_bits(t, [&](auto v) { b.in.run = exec1<Not, decltype(v)>; });
  same_type_operands(b, t, 1);
}

void decode_cnot(InstrBuilder& b) {
  Type t = b.take_type();
  with_bits(t, [&](auto v) { b.in.run = exec1<Cnot, decltype(v)>; });
  same_type_operands(b, t, 1);
}

// Shift amounts are u32 and clamp at the width.
template <class T>
void shl(Warp& w, const Instr& in, uint32_t mask) {
  map2<T, T, uint32_t>(w, in, mask, [](T a, uint32_t n) {
    return n >= 8 * sizeof(T)
               ? T{0}
               : static_cast<T>(std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>(a) << n);
  });
}
template <class T>
void shr(Warp& w, const Instr& in, uint32_t mask) {
  map2<T, T, uint32_t>(w, in, mask, [](T a, uint32_t n) {
    constexpr uint32_t kBits = 8 * sizeof(T);
    if (n >= kBits) return static_cast<T>(std::is_signed_v<T> && a < 0 ? -1 : 0);
    return static_cast<T>(a >> n);
  });
}

void shift_operands(InstrBuilder& b, Type t) {
  b.want_args(3, 3);
  b.reg(b.arg(0), size_of(t));
  b.sources(1, {t, Type::kU32});
}
void decode_shl(InstrBuilder& b) {
  Type t = b.take_type();
  with_bits(t, [&](auto v) { b.in.run = shl<decltype(v)>; });
  shift_operands(b, t);
}
void decode_shr(InstrBuilder& b) {
  Type t = b.take_type();
  with_integer(t, [&](auto v) { b.in.run = shr<decltype(v)>; });
  shift_operands(b, t);
}

// Funnel shift of b:a; mode bit 0 right, bit 1 clamp (else wrap).
void shf(Warp& w, const Instr& in, uint32_t mask) {
  bool right = in.mode & 1, clamp = in.mode & 2;
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, mask, [=](uint32_t a, uint32_t b, uint32_t c) {
        uint32_t n = clamp ? std::min<uint32_t>(c, 32) : c & 31;
        uint64_t pair = uint64_t{b} << 32 | a;
        return static_cast<uint32_t>(right ? pair >> n : pair << n >> 32);
      });
}
void decode_shf(InstrBuilder& b) {
  int direction = b.take_any({"l", "r"}), kind = b.take_any({"wrap", "clamp"});
  if (direction < 0 || kind < 0) b.fail("needs .l or .r and .wrap or .clamp");
  b.in.mode = static_cast<uint8_t>(direction | kind << 1);
  b.take_type();
  b.in.run = shf;
  same_type_operands(b, Type::kB32, 3);
}

uint32_t lop3_word(uint32_t a, uint32_t b, uint32_t c, int64_t table) {
  uint32_t r = 0;
  if (table & 0x01) r |= ~a & ~b & ~c;
  if (table & 0x02) r |= ~a & ~b & c;
  if (table & 0x04) r |= ~a & b & ~c;
  if (table & 0x08) r |= ~a & b & c;
  if (table & 0x10) r |= a & ~b & ~c;
  if (table & 0x20) r |= a & ~b & c;
  if (table & 0x40) r |= a & b & ~c;
  if (table & 0x80) r |= a & b & c;
  return r;
}
void lop3(Warp& w, const Instr& in, uint32_t mask) {
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, mask, [&](uint32_t a, uint32_t b, uint32_t c) { return lop3_word(a, b, c, in.imm); });
}
void decode_lop3(InstrBuilder& b) {
  b.take_type();
  b.want_args(5, 5);
  b.reg(b.arg(0), 4);
  b.sources(1, {Type::kB32, Type::kB32, Type::kB32});
  if (b.arg(4).kind != Arg::kImmediate) b.fail("the lookup table must be an immediate");
  b.in.imm = b.arg(4).value;
  b.in.run = lop3;
}

uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    uint32_t s = selector >> 4 * i & 15;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (s & 7)) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    r |= byte << 8 * i;
  }
  return r;
}
// Selectors of the special modes, by mode and the two low bits of c.
constexpr uint16_t kPermuteModes[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},   // f4e, b4e
    {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},   // rc8, ecl
    {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};  // ecr, rc16
void prmt(Warp& w, const Instr& in, uint32_t mask) {
  int mode = in.mode;
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, mask, [mode](uint32_t a, uint32_t b, uint32_t c) {
        return permute(a, b, mode ? kPermuteModes[mode - 1][c & 3] : c);
      });
}
void decode_prmt(InstrBuilder& b) {
  b.take_type();
  b.in.mode = static_cast<uint8_t>(b.take_any({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1);
  b.in.run = prmt;
  same_type_operands(b, Type::kB32, 3);
}

// Bit field extract: length and position are the low 8 bits of c and b; beyond the top, the sign.
template <class T>
void bfe(Warp& w, const Instr& in, uint32_t mask) {
  map3<T, T, uint32_t, uint32_t>(w, in, mask, [](T a, uint32_t pos, uint32_t len) {
    constexpr uint32_t kBits = 8 * sizeof(T);
    using U = std::make_unsigned_t<T>;
    pos &= 255, len &= 255;
    if (!len) return T{0};
    uint32_t sign_at = std::min(pos + len - 1, kBits - 1);
    U sign = std::is_signed_v<T> ? static_cast<U>(a) >> sign_at & 1 : 0;
    U field = pos >= kBits ? 0 : static_cast<U>(a) >> pos;
    uint32_t have = pos >= kBits ? 0 : std::min(len, kBits - pos);
    U keep = have >= kBits ? ~U{0} : (U{1} << have) - 1;
    return static_cast<T>((field & keep) | (sign ? ~keep : 0));
  });
}
void decode_bfe(InstrBuilder& b) {
  Type t = b.take_type();
  with_integer(t, [&](auto v) {
    if constexpr (sizeof v >= 4) b.in.run = bfe<decltype(v)>;
  });
  b.want_args(4, 4);
  b.reg(b.arg(0), size_of(t));
  b.sources(1, {t, Type::kU32, Type::kU32});
}

template <class T>
void bfi(Warp& w, const Instr& in, uint32_t mask) {
  const T *a = w.src<T>(in.ops[1]), *b = w.src<T>(in.ops[2]);
  const uint32_t *pos = w.src<uint32_t>(in.ops[3]), *len = w.src<uint32_t>(in.ops[4]);
  constexpr uint32_t kBits = 8 * sizeof(T);
  alignas(64) T r[32];
  for (int i = 0; i < 32; ++i) {
    uint32_t p = pos[i] & 255, n = len[i] & 255;
    T ones = n >= kBits ? ~T{0} : (T{1} << n) - 1;
    T field = p >= kBits ? 0 : ones << p;
    r[i] = p >= kBits ? b[i] : (b[i] & ~field) | ((a[i] << p) & field);
  }
  blend(w.dst<T>(in.ops[0]), r, mask);
}
void decode_bfi(InstrBuilder& b) {
  Type t = b.take_type();
  b.in.run = size_of(t) == 8 ? bfi<uint64_t> : bfi<uint32_t>;
  b.want_args(5, 5);
  b.reg(b.arg(0), size_of(t));
  b.sources(1, {t, t, Type::kU32, Type::kU32});
}

// bmsk (mode 0) makes a field of ones; szext (1 unsigned, 2 signed) extends from bit n.
void mask_word(Warp& w, const Instr& in, uint32_t mask) {
  int mode = in.mode;
  bool wrap = in.mode2 == 1;
  map2<uint32_t, uint32_t, uint32_t>(w, in, mask, [=](uint32_t a, uint32_t n) {
    if (mode == 0) {
      uint32_t pos = wrap ? a & 31 : a, len = wrap ? n & 31 : n;
      if (pos >= 32 || !len) return 0u;
      return (len >= 32 ? ~0u : (1u << len) - 1) << pos;
    }
    uint32_t width = wrap ? n & 31 : n;
    if (width >= 32) return a;
    uint32_t keep = (1u << width) - 1;
    bool sign = mode == 2 && width && a >> (width - 1) & 1;
    return sign ? a | ~keep : a & keep;
  });
}
void decode_mask_word(InstrBuilder& b) {
  b.in.mode2 = static_cast<uint8_t>(b.take_any({"clamp", "wrap"}));
  Type t = b.take_type();
  b.in.mode = t == Type::kB32 ? 0 : is_signed(t) ? 2 : 1;
  b.in.run = mask_word;
  same_type_operands(b, t, 2);
}

uint64_t reverse_bits(uint64_t v, int bits) {
  uint64_t r = 0;
  for (int i = 0; i < bits; ++i) r |= (v >> i & 1) << (bits - 1 - i);
  return r;
}
struct Brev {
  template <class T>
  static T run(T a) {
    return static_cast<T>(reverse_bits(a, 8 * sizeof(T)));
  }
};
void decode_brev(InstrBuilder& b) {
  Type t = b.take_type();
  b.in.run = size_of(t) == 8 ? exec1<Brev, uint64_t> : exec1<Brev, uint32_t>;
  same_type_operands(b, t, 1);
}

// popc, clz, bfind (mode 0, 1, 2; 3 is bfind.shiftamt): u32 results of 32- or 64-bit sources.
template <class T>
void count_bits(Warp& w, const Instr& in, uint32_t mask) {
  int mode = in.mode;
  map1<uint32_t, T>(w, in, mask, [mode](T v) -> uint32_t {
    auto u = static_cast<std::make_unsigned_t<T>>(v);
    constexpr uint32_t kBits = 8 * sizeof(T);
    if (mode == 0) return static_cast<uint32_t>(__builtin_popcountll(u));
    if (mode >= 2 && v < 0) u = ~u;
    uint32_t zeros = u ? static_cast<uint32_t>(__builtin_clzll(u)) - (64 - kBits) : kBits;
    if (mode == 1) return zeros;
    if (!u) return ~0u;
    return mode == 3 ? zeros : kBits - 1 - zeros;
  });
}
void decode_count_bits(InstrBuilder& b) {
  char first = b.statement().opcode[0];
  b.in.mode = first == 'p' ? 0 : first == 'c' ? 1 : b.take("shiftamt") ? 3 : 2;
  Type t = b.take_type();
  with_integer(t, [&](auto v) {
    if constexpr (sizeof v >= 4) b.in.run = count_bits<decltype(v)>;
  });
  b.want_args(2, 2);
  b.reg(b.arg(0), 4);
  b.source(b.arg(1), t);
}

// fns: the n-th set bit from a base, n signed.
void fns(Warp& w, const Instr& in, uint32_t mask) {
  map3<uint32_t, uint32_t, uint32_t, int32_t>(
      w, in, mask, [](uint32_t m, uint32_t base, int32_t n) {
        int step = n < 0 ? -1 : 1;
        int64_t left = std::abs(int64_t{n});
        if (n == 0) return m >> (base & 31) & 1 ? base : ~0u;
        for (int i = static_cast<int>(base); i >= 0 && i < 32; i += step)
          if (m >> i & 1 && --left == 0) return static_cast<uint32_t>(i);
        return ~0u;
      });
}
void decode_fns(InstrBuilder& b) {
  b.take_type();
  b.in.run = fns;
  same_type_operands(b, Type::kB32, 3);
}

}  // namespace

void decode_packed16(InstrBuilder& b) {
  std::string_view name = b.statement().opcode.substr(0, 3);
  bool sign = b.take_type() == Type::kS16x2;
  b.in.mode = static_cast<uint8_t>(name == "add" ? 0 : name == "min" ? 1 : 2);
  b.in.mode2 = sign;
  b.in.run = [](Warp& w, const Instr& in, uint32_t mask) {
    int mode = in.mode, flip = in.mode2 ? 0x8000 : 0;
    map2<uint32_t, uint32_t, uint32_t>(w, in, mask, [=](uint32_t x, uint32_t y) {
      uint32_t r = 0;
      for (int shift = 0; shift < 32; shift += 16) {
        uint32_t p = x >> shift & 0xFFFF, q = y >> shift & 0xFFFF, v = p + q;
        bool less = (p ^ flip) < (q ^ flip);
        if (mode) v = less == (mode == 1) ? p : q;
        r |= (v & 0xFFFF) << shift;
      }
      return r;
    });
  };
  if (name == "sub") b.fail("unsupported form");
  same_type_operands(b, Type::kB32, 2);
}

const OpRow kLogicRows[] = {
    {"and", OpClass::kInteger, decode_logic<And>}, {"or", OpClass::kInteger, decode_logic<Or>},
    {"xor", OpClass::kInteger, decode_logic<Xor>}, {"not", OpClass::kInteger, decode_not},
    {"cnot", OpClass::kInteger, decode_cnot},      {"shl", OpClass::kInteger, decode_shl},
    {"shr", OpClass::kInteger, decode_shr},        {"shf", OpClass::kInteger, decode_shf},
    {"lop3", OpClass::kInteger, decode_lop3},      {"prmt", OpClass::kInteger, decode_prmt},
    {"bfe", OpClass::kInteger, decode_bfe},        {"bfi", OpClass::kInteger, decode_bfi},
    {"bmsk", OpClass::kInteger, decode_mask_word}, {"szext", OpClass::kInteger, decode_mask_word},
    {"brev", OpClass::kInteger, decode_brev},      {"popc", OpClass::kInteger, decode_count_bits},
    {"clz", OpClass::kInteger, decode_count_bits}, {"bfind", OpClass::kInteger, decode_count_bits},
    {"fns", OpClass::kInteger, decode_fns},        {nullptr, OpClass::kInteger, nullptr}};

}  // namespace rnk::emu
