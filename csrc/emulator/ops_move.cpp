// mov (with packing and unpacking), setp, set, selp, slct.
#include "block.h"
#include "float_formats.h"
#include "ops.h"

namespace rnk::emu {
namespace {

template <class T>
void mov(Warp& w, const Instr& in, uint32_t mask) {
  blend(w.dst<T>(in.ops[0]), w.src<T>(in.ops[1]), mask);
}
void mov_pred(Warp& w, const Instr& in, uint32_t mask) {
  w.set_predicate(in.ops[0], mask, w.predicate(in.ops[1]));
}

// {a, b, ...} into one register, low part first; mode is the bits of a part.
void mov_pack(Warp& w, const Instr& in, uint32_t mask) {
  uint64_t r[32] = {}, part[32];
  for (int k = 1; k < in.op_count; ++k) {
    w.read_lanes(in.ops[k], part);
    uint64_t keep = in.mode == 32 ? 0xFFFFFFFF : (uint64_t{1} << in.mode) - 1;
    for (int i = 0; i < 32; ++i) r[i] |= (part[i] & keep) << (k - 1) * in.mode;
  }
  w.write_lanes(in.ops[0], mask, r);
}
void mov_unpack(Warp& w, const Instr& in, uint32_t mask) {
  uint64_t v[32], part[32];
  w.read_lanes(in.ops[in.op_count - 1], v);
  uint64_t keep = in.mode == 32 ? 0xFFFFFFFF : (uint64_t{1} << in.mode) - 1;
  for (int k = 0; k + 1 < in.op_count; ++k) {
    for (int i = 0; i < 32; ++i) part[i] = v[i] >> k * in.mode & keep;
    w.write_lanes(in.ops[k], mask, part);
  }
}

// %clock, %clock64, %globaltimer: warp instructions of the launch so far, which never go back.
void mov_clock(Warp& w, const Instr& in, uint32_t mask) {
  uint64_t now = w.block->launch.executed.load(std::memory_order_relaxed) + ++w.ticks;
  uint64_t v[32];
  for (uint64_t& x : v) x = in.mode ? now >> 32 : now;
  w.write_lanes(in.ops[0], mask, v);
}

void decode_mov_vector(InstrBuilder& b, Type t) {
  bool unpack = b.arg(0).kind == Arg::kVector;
  const Arg& parts = b.arg(unpack ? 0 : 1);
  auto n = static_cast<int>(parts.items.size());
  if (n != 2 && n != 4 && n != 8) b.fail("unsupported vector");
  int bytes = size_of(t) / n;
  if (bytes < 1) b.fail("unsupported vector");
  b.in.mode = static_cast<uint8_t>(8 * bytes);
  if (unpack) {
    for (const Arg& a : parts.items) b.any_width(a, bytes);
    b.any_width(b.arg(1), size_of(t));
    b.in.run = mov_unpack;
  } else {
    b.reg(b.arg(0), size_of(t));
    for (const Arg& a : parts.items) b.source(a, bytes == 4 ? Type::kB32 : Type::kB16);
    b.in.run = mov_pack;
  }
}

void decode_mov(InstrBuilder& b) {
  Type t = b.take_type();
  b.want_args(2, 2);
  if (t == Type::kPred) {
    b.in.run = mov_pred;
    b.pred(b.arg(0));
    return b.pred(b.arg(1));
  }
  if (b.arg(0).kind == Arg::kVector || b.arg(1).kind == Arg::kVector)
    return decode_mov_vector(b, t);
  const std::string& name = b.arg(1).name;
  if (b.arg(1).kind == Arg::kSpecial &&
      (name.rfind("%clock", 0) == 0 || name.rfind("%globaltimer", 0) == 0)) {
    b.in.mode = name.size() > 3 && name.substr(name.size() - 3) == "_hi";
    b.in.run = mov_clock;
    return b.reg(b.arg(0), size_of(t));
  }
  b.in.run = size_of(t) == 8 ? mov<uint64_t> : size_of(t) == 4 ? mov<uint32_t> : mov<uint16_t>;
  b.in.type = t;
  b.reg(b.arg(0), std::max(2, size_of(t)));
  // A move carries bits: an integer immediate may go into a float register.
  b.source(b.arg(1), is_float(t) && b.arg(1).kind == Arg::kImmediate
                         ? (size_of(t) == 8   ? Type::kB64
                            : size_of(t) == 4 ? Type::kB32
                                              : Type::kB16)
                         : t);
}

enum Compare : uint8_t {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,
  kNum,
  kNan
};

template <class T>
bool compare(Compare c, T a, T b) {
  bool unordered = a != a || b != b;
  switch (c) {
    case kEq:
      return a == b;
    case kNe:
      return a != b && !unordered;
    case kLt:
      return a < b;
    case kLe:
      return a <= b;
    case kGt:
      return a > b;
    case kGe:
      return a >= b;
    case kEqu:
      return a == b || unordered;
    case kNeu:
      return a != b || unordered;
    case kLtu:
      return a < b || unordered;
    case kLeu:
      return a <= b || unordered;
    case kGtu:
      return a > b || unordered;
    case kGeu:
      return a >= b || unordered;
    case kNum:
      return !unordered;
    default:
      return unordered;
  }
}

template <class T, class Load, Compare kCompare>
uint32_t compare_lanes(const Warp& w, const Instr& in) {
  const T *a = w.src<T>(in.ops[in.op_count - 2]), *b = w.src<T>(in.ops[in.op_count - 1]);
  uint8_t r[32];
  for (int i = 0; i < 32; ++i) r[i] = compare(kCompare, Load::run(a[i], in), Load::run(b[i], in));
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(r[i]) << i;
  return bits;
}
struct Same {
  template <class T>
  static T run(T v, const Instr&) {
    return v;
  }
};
struct Flush {
  static float run(float v, const Instr& in) {
    return in.flags & kFtz && std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v;
  }
};
struct LoadHalf {
  static float run(uint16_t v, const Instr&) { return half_to_float(v); }
};
struct LoadBf16 {
  static float run(uint16_t v, const Instr&) { return bf16_to_float(v); }
};

using Comparer = uint32_t (*)(const Warp&, const Instr&);
template <class T, class Load>
Comparer comparer(Compare c) {
  static constexpr Comparer kTable[] = {
      compare_lanes<T, Load, kEq>,  compare_lanes<T, Load, kNe>,  compare_lanes<T, Load, kLt>,
      compare_lanes<T, Load, kLe>,  compare_lanes<T, Load, kGt>,  compare_lanes<T, Load, kGe>,
      compare_lanes<T, Load, kEqu>, compare_lanes<T, Load, kNeu>, compare_lanes<T, Load, kLtu>,
      compare_lanes<T, Load, kLeu>, compare_lanes<T, Load, kGtu>, compare_lanes<T, Load, kGeu>,
      compare_lanes<T, Load, kNum>, compare_lanes<T, Load, kNan>};
  return kTable[c];
}

Comparer pick_comparer(Type t, Compare c) {
  Comparer r = nullptr;
  if (t == Type::kF32) return comparer<float, Flush>(c);
  if (t == Type::kF64) return comparer<double, Same>(c);
  if (t == Type::kF16) return comparer<uint16_t, LoadHalf>(c);
  if (t == Type::kBF16) return comparer<uint16_t, LoadBf16>(c);
  with_integer(t, [&](auto v) { r = comparer<decltype(v), Same>(c); });
  return r;
}

// f16x2 and bf16x2: p for the low half, q for the high one
void setp_pair(Warp& w, const Instr& in, uint32_t mask) {
  const uint32_t *a = w.src<uint32_t>(in.ops[in.op_count - 2]),
                 *b = w.src<uint32_t>(in.ops[in.op_count - 1]);
  for (int part = 0; part < 2; ++part) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; ++i) {
      auto x = static_cast<uint16_t>(a[i] >> 16 * part),
           y = static_cast<uint16_t>(b[i] >> 16 * part);
      bool half = in.type == Type::kF16x2;
      float p = half ? half_to_float(x) : bf16_to_float(x),
            q = half ? half_to_float(y) : bf16_to_float(y);
      bits |= static_cast<uint32_t>(compare(static_cast<Compare>(in.mode2), p, q)) << i;
    }
    w.set_predicate(in.ops[part], mask, bits);
  }
}

// ops: p, q, c, a, b; mode 1 and, 2 or, 3 xor with c
void setp(Warp& w, const Instr& in, uint32_t mask) {
  auto cmp = reinterpret_cast<Comparer>(in.imm);
  uint32_t t = cmp(w, in), f = ~t;
  if (in.mode) {
    uint32_t c = w.predicate(in.ops[2]);
    t = in.mode == 1 ? t & c : in.mode == 2 ? t | c : t ^ c;
    f = in.mode == 1 ? f & c : in.mode == 2 ? f | c : f ^ c;
  }
  w.set_predicate(in.ops[0], mask, t);
  w.set_predicate(in.ops[1], mask, f);
}

// d = true value or 0; true is 1.0 for a float d
void set(Warp& w, const Instr& in, uint32_t mask) {
  auto cmp = reinterpret_cast<Comparer>(in.imm);
  uint32_t t = cmp(w, in);
  if (in.mode) {
    uint32_t c = w.predicate(in.ops[1]);
    t = in.mode == 1 ? t & c : in.mode == 2 ? t | c : t ^ c;
  }
  uint64_t one = in.type == Type::kF32    ? 0x3F800000
                 : in.type == Type::kF16  ? 0x3C00
                 : in.type == Type::kBF16 ? 0x3F80
                                          : ~uint64_t{0};
  uint64_t r[32];
  for (int i = 0; i < 32; ++i) r[i] = t >> i & 1 ? one : 0;
  w.write_lanes(in.ops[0], mask, r);
}

Compare take_compare(InstrBuilder& b, bool unsigned_integer) {
  if (unsigned_integer) {
    int u = b.take_any({"lo", "ls", "hi", "hs"});
    if (u >= 0) return static_cast<Compare>(kLt + u);
  }
  int c = b.take_any(
      {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  if (c < 0) b.fail("unknown comparison");
  return static_cast<Compare>(c);
}

void decode_setp(InstrBuilder& b) {
  Compare c = take_compare(b, true);
  b.in.mode = static_cast<uint8_t>(b.take_any({"and", "or", "xor"}) + 1);
  b.flag("ftz", kFtz);
  Type t = b.take_type();
  b.in.type = t;
  b.in.mode2 = c;
  b.want_args(b.in.mode ? 4 : 3, b.in.mode ? 4 : 3);
  b.pred(b.arg(0));
  if (b.arg(0).second.empty())
    b.none();
  else
    b.pred(b.arg(0).second[0]);
  if (b.in.mode)
    b.pred(b.arg(3));
  else
    b.none();
  b.sources(1, {t, t});
  if (t == Type::kF16x2 || t == Type::kBF16x2) {
    if (b.in.mode) b.fail("unsupported form");
    b.in.run = setp_pair;
    return;
  }
  Comparer cmp = pick_comparer(t, c);
  if (!cmp) b.fail("unsupported type");
  b.in.imm = reinterpret_cast<int64_t>(cmp);
  b.in.run = setp;
}

void decode_set(InstrBuilder& b) {
  Compare c = take_compare(b, true);
  b.in.mode = static_cast<uint8_t>(b.take_any({"and", "or", "xor"}) + 1);
  b.flag("ftz", kFtz);
  b.in.type = b.take_type();
  Type t = b.take_type();
  b.want_args(b.in.mode ? 4 : 3, b.in.mode ? 4 : 3);
  b.reg(b.arg(0), size_of(b.in.type));
  if (b.in.mode)
    b.pred(b.arg(3));
  else
    b.none();
  b.sources(1, {t, t});
  Comparer cmp = pick_comparer(t, c);
  if (!cmp) b.fail("unsupported type");
  b.in.imm = reinterpret_cast<int64_t>(cmp);
  b.in.run = set;
}

template <class T>
void selp(Warp& w, const Instr& in, uint32_t mask) {
  uint32_t p = w.predicate(in.ops[3]);
  const T *a = w.src<T>(in.ops[1]), *b = w.src<T>(in.ops[2]);
  alignas(64) T r[32];
  for (int i = 0; i < 32; ++i) r[i] = p >> i & 1 ? a[i] : b[i];
  blend(w.dst<T>(in.ops[0]), r, mask);
}
void decode_selp(InstrBuilder& b) {
  Type t = b.take_type();
  b.want_args(4, 4);
  b.reg(b.arg(0), size_of(t));
  b.sources(1, {t, t});
  b.pred(b.arg(3));
  with_bits(t, [&](auto v) { b.in.run = selp<decltype(v)>; });
}

// slct: a if c >= 0 else b; c is s32 or f32 (-0.0 counts as >= 0, NaN as not)
template <class T>
void slct(Warp& w, const Instr& in, uint32_t mask) {
  const T *a = w.src<T>(in.ops[1]), *b = w.src<T>(in.ops[2]);
  alignas(64) T r[32];
  for (int i = 0; i < 32; ++i) {
    bool first = in.type == Type::kF32 ? Flush::run(w.src<float>(in.ops[3])[i], in) >= 0
                                       : w.src<int32_t>(in.ops[3])[i] >= 0;
    r[i] = first ? a[i] : b[i];
  }
  blend(w.dst<T>(in.ops[0]), r, mask);
}
void decode_slct(InstrBuilder& b) {
  b.flag("ftz", kFtz);
  Type t = b.take_type();
  b.in.type = b.take_type();
  b.want_args(4, 4);
  b.reg(b.arg(0), size_of(t));
  b.sources(1, {t, t, b.in.type});
  with_bits(t, [&](auto v) { b.in.run = slct<decltype(v)>; });
}

}  // namespace

const OpRow kMoveRows[] = {
    {"mov", OpClass::kMove, decode_mov},      {"setp", OpClass::kPredicate, decode_setp},
    {"set", OpClass::kPredicate, decode_set}, {"selp", OpClass::kMove, decode_selp},
    {"slct", OpClass::kMove, decode_slct},    {nullptr, OpClass::kMove, nullptr}};

}  // namespace rnk::emu
