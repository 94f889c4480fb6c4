// ld, st and their relatives. A strong access (volatile, relaxed, acquire, release) synchronises.
#include "block.h"
#include "memory_access.h"
#include "ops.h"
#include "sync_access.h"

namespace rnk::emu {
namespace {

uint64_t load_element(const char* p, Type t) {
  switch (size_of(t)) {
    case 1: {
      auto v = static_cast<uint8_t>(*p);
      return is_signed(t) ? static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(v))) : v;
    }
    case 2: {
      uint16_t v;
      std::memcpy(&v, p, 2);
      return is_signed(t) ? static_cast<uint64_t>(static_cast<int64_t>(static_cast<int16_t>(v)))
                          : v;
    }
    case 4: {
      uint32_t v;
      std::memcpy(&v, p, 4);
      return is_signed(t) ? static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(v)))
                          : v;
    }
    default: {
      uint64_t v;
      std::memcpy(&v, p, 8);
      return v;
    }
  }
}

template <class T>
void gather(Warp& w, const Operand& d, uint32_t mask, char* const* pointer, int offset) {
  T* out = w.dst<T>(d);
  for (uint32_t m = mask; m; m &= m - 1) {
    int i = __builtin_ctz(m);
    std::memcpy(&out[i], pointer[i] + offset, sizeof(T));
  }
}

// ops: destinations..., address
void load(Warp& w, const Instr& in, uint32_t mask) {
  MemoryRequest m;
  int element = size_of(in.type);
  m.size = static_cast<uint32_t>(element * in.vec);
  m.space = in.space;
  m.strong = in.flags & kStrong;
  m.block_scope = in.flags & kBlockScope;
  compute_addresses(w, in.ops[in.vec], in.imm, in.space, m.address);
  access_memory(w, m, mask);
  for (int k = 0; k < in.vec; ++k) {
    const Operand& d = in.ops[k];
    if (d.kind == Operand::kNone) continue;
    if (d.width == 4 && element == 4) {
      gather<uint32_t>(w, d, mask, m.pointer, k * 4);
    } else if (d.width == 8 && element == 8) {
      gather<uint64_t>(w, d, mask, m.pointer, k * 8);
    } else {
      uint64_t v[32];
      for (uint32_t rest = mask; rest; rest &= rest - 1) {
        int i = __builtin_ctz(rest);
        v[i] = load_element(m.pointer[i] + k * element, in.type);
      }
      w.write_lanes(d, mask, v);
    }
  }
  // After the value is read: a release that comes before the value must be in what is seen.
  if (m.strong) synchronise(w, m, mask, true, false, in.flags);
}

template <class T>
void scatter(const Warp& w, const Operand& s, char* staged, uint32_t stride) {
  const T* from = w.src<T>(s);
  for (int i = 0; i < 32; ++i) std::memcpy(staged + i * stride, &from[i], sizeof(T));
}

// ops: sources..., address
void store(Warp& w, const Instr& in, uint32_t mask) {
  alignas(64) char staged[32 * 32];
  MemoryRequest m;
  int element = size_of(in.type);
  m.size = static_cast<uint32_t>(element * in.vec);
  m.space = in.space;
  m.access = Access::kWrite;
  m.strong = in.flags & kStrong;
  m.block_scope = in.flags & kBlockScope;
  m.staged = staged;
  for (int k = 0; k < in.vec; ++k) {
    const Operand& s = in.ops[k];
    char* to = staged + k * element;
    if (s.width == 4 && element == 4) {
      scatter<uint32_t>(w, s, to, m.size);
    } else if (s.width == 8 && element == 8) {
      scatter<uint64_t>(w, s, to, m.size);
    } else {
      uint64_t v[32];
      w.read_lanes(s, v);
      for (int i = 0; i < 32; ++i)
        std::memcpy(to + i * m.size, &v[i], static_cast<size_t>(element));
    }
  }
  compute_addresses(w, in.ops[in.vec], in.imm, in.space, m.address);
  if (m.strong) {  // the release must be visible before the value is
    MemoryRequest copy = m;
    synchronise(w, copy, mask, false, true, in.flags);
  }
  access_memory(w, m, mask);
}

void decode_access(InstrBuilder& b, bool is_store) {
  b.take("mmio");  // stands before .relaxed
  int order = b.take_any({"weak", "volatile", "relaxed", "acquire", "release"});
  if (order >= 1) b.in.flags |= kStrong;
  if (order == 3) b.in.flags |= kAcquire;
  if (order == 4) b.in.flags |= kRelease;
  if (b.take_scope()) b.in.flags |= kBlockScope;
  b.in.space = b.take_space();
  b.take_cache_hints();
  int vec = b.take_any({"v2", "v4", "v8"});
  b.in.vec = static_cast<uint8_t>(vec < 0 ? 1 : 2 << vec);
  b.in.type = b.take_type();
  int element = size_of(b.in.type);
  if (element > 8 || element * b.in.vec > 32) b.fail("unsupported width");
  b.want_args(2, 3);
  const Arg& data = b.arg(is_store ? 1 : 0);
  if (data.kind == Arg::kVector && data.items.size() != b.in.vec)
    b.fail("vector of the wrong size");
  if (data.kind != Arg::kVector && b.in.vec != 1) b.fail("expected a vector");
  const Arg& one = data.kind == Arg::kVector ? data.items[0] : data;
  for (int k = 0; k < b.in.vec; ++k) {
    const Arg& a = data.kind == Arg::kVector ? data.items[static_cast<size_t>(k)] : one;
    if (a.kind == Arg::kRegister || a.kind == Arg::kSink)
      b.any_width(a, std::max(2, element));
    else if (is_store)
      b.source(a, element == 1 ? Type::kB16
                  : is_float(b.in.type) && a.kind == Arg::kImmediate
                      ? (element == 8 ? Type::kB64 : Type::kB32)
                      : b.in.type);
    else
      b.fail("expected a register");
  }
  b.address(b.arg(is_store ? 0 : 1));
  b.in.run = is_store ? store : load;
}
void decode_ld(InstrBuilder& b) { decode_access(b, false); }
void decode_st(InstrBuilder& b) { decode_access(b, true); }

void nothing(Warp&, const Instr&, uint32_t) {}
// Hints without effect on values.
void decode_hint(InstrBuilder& b) {
  while (!b.next_modifier().empty()) {
  }
  b.in.run = nothing;
}

}  // namespace

const OpRow kMemoryRows[] = {{"ld", OpClass::kLoad, decode_ld},
                             {"ldu", OpClass::kLoad, decode_ld},
                             {"st", OpClass::kStore, decode_st},
                             {"prefetch", OpClass::kControl, decode_hint},
                             {"prefetchu", OpClass::kControl, decode_hint},
                             {"discard", OpClass::kControl, decode_hint},
                             {"applypriority", OpClass::kControl, decode_hint},
                             {"createpolicy", OpClass::kControl, decode_hint},
                             {nullptr, OpClass::kLoad, nullptr}};

}  // namespace rnk::emu
