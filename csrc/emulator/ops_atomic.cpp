// atom and red of every operation and scalar type, v2/v4/v8 red and atom, f16x2 and bf16x2.
#include "block.h"
#include "float_formats.h"
#include "memory_access.h"
#include "ops.h"
#include "sync_access.h"

namespace rnk::emu {
namespace {

enum Operation : uint8_t { kAnd, kOr, kXor, kExch, kAdd, kInc, kDec, kMin, kMax, kCas };

template <class T>
T combine(Operation op, T old, T b, T c) {
  using U = std::conditional_t<
      std::is_floating_point_v<T>, T,
      std::make_unsigned_t<std::conditional_t<std::is_floating_point_v<T>, int, T>>>;
  switch (op) {
    case kExch:
      return b;
    case kAdd:
      return static_cast<T>(static_cast<U>(old) + static_cast<U>(b));
    case kMin:
      return b < old ? b : old;
    case kMax:
      return b > old ? b : old;
    case kCas:
      return old == b ? c : old;
    default:
      break;
  }
  if constexpr (std::is_integral_v<T>) {
    if (op == kAnd) return old & b;
    if (op == kOr) return old | b;
    if (op == kXor) return old ^ b;
    if (op == kInc) return old >= b ? 0 : old + 1;
    if (op == kDec) return old == 0 || old > b ? b : old - 1;
  }
  return old;
}

// Half formats, one or two in a word.
template <bool kBf16>
uint16_t combine_half(Operation op, uint16_t old, uint16_t b) {
  auto load = [](uint16_t v) { return kBf16 ? bf16_to_float(v) : half_to_float(v); };
  float x = load(old), y = load(b);
  if (op == kAdd) {
    float sum = to_float_odd(add_odd(x, y));
    return kBf16 ? float_to_bf16(sum) : float_to_half(sum);
  }
  if (x != x || y != y) return x != x ? (y != y ? 0x7FFF : b) : old;
  bool keep = op == kMin ? x <= y : x >= y;
  return keep ? old : b;
}

template <class T>
T combine_typed(const Instr& in, T old, T b, T c) {
  auto op = static_cast<Operation>(in.mode);
  switch (in.type) {
    case Type::kF32:
      return float_bits(combine<float>(op, bits_float(static_cast<uint32_t>(old)),
                                       bits_float(static_cast<uint32_t>(b)), 0));
    case Type::kF64:
      return static_cast<T>(double_bits(combine<double>(op, bits_double(old), bits_double(b), 0)));
    case Type::kF16:
      return combine_half<false>(op, static_cast<uint16_t>(old), static_cast<uint16_t>(b));
    case Type::kBF16:
      return combine_half<true>(op, static_cast<uint16_t>(old), static_cast<uint16_t>(b));
    case Type::kF16x2:
    case Type::kBF16x2: {
      auto part = [&](int shift) {
        auto x = static_cast<uint16_t>(old >> shift), y = static_cast<uint16_t>(b >> shift);
        uint32_t r =
            in.type == Type::kF16x2 ? combine_half<false>(op, x, y) : combine_half<true>(op, x, y);
        return r << shift;
      };
      return static_cast<T>(part(0) | part(16));
    }
    default:
      break;
  }
  if (is_signed(in.type))
    return static_cast<T>(combine<std::make_signed_t<T>>(
        op, static_cast<std::make_signed_t<T>>(old), static_cast<std::make_signed_t<T>>(b),
        static_cast<std::make_signed_t<T>>(c)));
  return combine<T>(op, old, b, c);
}

template <class T>
T atomic_update(const Instr& in, char* p, T b, T c, bool* changed) {
  auto* word = reinterpret_cast<T*>(p);
  T old = __atomic_load_n(word, __ATOMIC_RELAXED);
  T result = combine_typed<T>(in, old, b, c);
  while (
      !__atomic_compare_exchange_n(word, &old, result, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
    result = combine_typed<T>(in, old, b, c);
  *changed |= old != result;
  return old;
}

// ops: destinations (vec, or one none for red), address, b (vec), c
template <class T>
void atomic(Warp& w, const Instr& in, uint32_t mask) {
  MemoryRequest m;
  m.size = static_cast<uint32_t>(sizeof(T) * in.vec);
  m.access = Access::kAtomic;
  m.strong = true;
  m.block_scope = in.flags & kBlockScope;
  m.space = in.space;
  compute_addresses(w, in.ops[in.vec], in.imm, in.space, m.address);
  synchronise(w, m, mask, false, true, in.flags);
  access_memory(w, m, mask);
  uint64_t b[32], c[32] = {}, old[32];
  for (int k = 0; k < in.vec; ++k) {
    w.read_lanes(in.ops[in.vec + 1 + k], b);
    if (in.mode == kCas) w.read_lanes(in.ops[in.vec + 2], c);
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int i = __builtin_ctz(rest);
      old[i] = atomic_update<T>(in, m.pointer[i] + k * sizeof(T), static_cast<T>(b[i]),
                                static_cast<T>(c[i]), &w.changed);
    }
    if (in.ops[k].kind != Operand::kNone) w.write_lanes(in.ops[k], mask, old);
  }
  synchronise(w, m, mask, true, false, in.flags);
  Suspicions& suspicions = w.block->launch.suspicions;
  for (uint32_t rest = mask; rest && suspicions.any(); rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    suspicions.forgive(w.uid(), static_cast<uint32_t>(i), m.pointer[i]);
  }
  w.block->counters.atomics += static_cast<uint64_t>(__builtin_popcount(mask));
}

void decode_modifiers(InstrBuilder& b) {
  int order = b.take_any({"relaxed", "acquire", "release", "acq_rel"});
  if (order == 1 || order == 3) b.in.flags |= kAcquire;
  if (order == 2 || order == 3) b.in.flags |= kRelease;
  if (b.take_scope()) b.in.flags |= kBlockScope;
  b.in.space = b.take_space();
  int op = b.take_any({"and", "or", "xor", "exch", "add", "inc", "dec", "min", "max", "cas"});
  if (op < 0) b.fail("unknown operation");
  b.in.mode = static_cast<uint8_t>(op);
  b.take("noftz");
  b.take("L2::cache_hint");
  int vec = b.take_any({"v2", "v4", "v8"});
  b.in.vec = static_cast<uint8_t>(vec < 0 ? 1 : 2 << vec);
  b.in.type = b.take_type();
  bool narrow_or_float = is_float(b.in.type);
  if (narrow_or_float && op != kAdd && op != kMin && op != kMax && op != kExch)
    b.fail("unsupported form");
}

void decode_atomic(InstrBuilder& b, bool returns) {
  decode_modifiers(b);
  int size = size_of(b.in.type);
  if (size != 2 && size != 4 && size != 8) b.fail("unsupported type");
  b.in.run = size == 8 ? atomic<uint64_t> : size == 4 ? atomic<uint32_t> : atomic<uint16_t>;
  if (!returns && (b.in.mode == kExch || b.in.mode == kCas)) b.fail("unsupported operation");
  size_t next = 0;
  auto each = [&](const Arg& a, bool is_source) {
    for (size_t k = 0; k < b.in.vec; ++k) {
      if (b.in.vec > 1 && (a.kind != Arg::kVector || a.items.size() != b.in.vec))
        b.fail("expected a vector");
      const Arg& item = a.kind == Arg::kVector ? a.items[k] : a;
      if (is_source)
        b.source(item, b.in.type);
      else
        b.reg(item, size);
    }
  };
  if (returns)
    each(b.arg(next++), false);
  else
    for (int k = 0; k < b.in.vec; ++k) b.none();
  b.address(b.arg(next++));
  each(b.arg(next++), true);
  if (b.in.mode == kCas) b.source(b.arg(next++), b.in.type);
}
void decode_atom(InstrBuilder& b) { decode_atomic(b, true); }
void decode_red(InstrBuilder& b) { decode_atomic(b, false); }

}  // namespace

const OpRow kAtomicRows[] = {{"atom", OpClass::kAtomic, decode_atom},
                             {"red", OpClass::kAtomic, decode_red},
                             {nullptr, OpClass::kAtomic, nullptr}};

}  // namespace rnk::emu
