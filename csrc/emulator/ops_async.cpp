// cp.async: the source is read when issued, the bytes land in shared memory only at the wait.
#include "block.h"
#include "memory_access.h"
#include "ops.h"

namespace rnk::emu {
namespace {

// Reads the source bytes of every lane into its AsyncCopy, in naturally aligned powers of two.
void read_sources(Warp& w, const uint64_t* source, const uint64_t* bytes, uint32_t mask,
                  size_t first_copy) {
  for (uint32_t piece = 16; piece; piece >>= 1) {
    MemoryRequest m;
    m.size = piece;
    m.space = Space::kGlobal;
    uint32_t lanes = 0;
    uint64_t offset[32];
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int i = __builtin_ctz(rest);
      if (!(bytes[i] & piece)) continue;
      lanes |= 1u << i;
      offset[i] = bytes[i] & ~(uint64_t{2} * piece - 1);
      m.address[i] = source[i] + offset[i];
    }
    if (!lanes) continue;
    access_memory(w, m, lanes);
    for (size_t c = first_copy; c < w.copies.size(); ++c) {
      AsyncCopy& copy = w.copies[c];
      if (lanes >> copy.lane & 1)
        std::memcpy(copy.data.data() + offset[copy.lane], m.pointer[copy.lane], piece);
    }
  }
}

// ops: shared address, global address, source bytes, ignore-source; mode: bytes to fill
void copy_issue(Warp& w, const Instr& in, uint32_t mask) {
  MemoryRequest to;
  to.size = in.mode;
  to.space = Space::kShared;
  to.access = Access::kAsyncIssue;
  compute_addresses(w, in.ops[0], in.imm, Space::kShared, to.address);
  access_memory(w, to, mask);
  uint64_t source[32], bytes[32];
  compute_addresses(w, in.ops[1], *static_cast<const int64_t*>(in.aux), Space::kGlobal, source);
  w.read_lanes(in.ops[2], bytes);
  uint32_t ignore = in.ops[3].kind == Operand::kNone ? 0 : w.predicate(in.ops[3]);
  size_t first = w.copies.size();
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    if (bytes[i] > in.mode) throw Fault{"async_copy", "cp.async source size exceeds its size", i};
    if (ignore >> i & 1) bytes[i] = 0;
    if (bytes[i] && source[i] % in.mode)
      throw Fault{"misaligned", "cp.async source is not aligned to its size", i};
    w.copies.push_back(AsyncCopy{w.current,
                                 static_cast<uint32_t>(to.address[i]),
                                 w.copy_group[i],
                                 static_cast<uint8_t>(i),
                                 in.mode,
                                 {}});
  }
  read_sources(w, source, bytes, mask, first);
}

void decode_copy(InstrBuilder& b) {
  b.take_cache_hints();
  if (b.take_any({"shared", "shared::cta"}) < 0 || !b.take("global"))
    b.fail("needs .shared.global");
  b.take("shared::cta");
  b.want_args(3, 5);
  b.address(b.arg(0));
  int64_t to = b.in.imm;
  b.in.imm = 0;
  b.address(b.arg(1));
  b.in.aux = b.decoder().own(b.in.imm);
  b.in.imm = to;
  int64_t size = b.arg(2).value;
  if (b.arg(2).kind != Arg::kImmediate || (size != 4 && size != 8 && size != 16))
    b.fail("the size must be 4, 8 or 16");
  b.in.mode = static_cast<uint8_t>(size);
  bool has_fourth = b.arg_count() > 3;
  bool is_pred =
      has_fourth && b.arg(3).kind == Arg::kRegister &&
      b.decoder().register_operand(static_cast<int>(b.arg(3).value)).kind == Operand::kPredicate;
  bool is_policy = has_fourth && b.arg_count() == 4 &&
                   b.statement().opcode.find("cache_hint") != std::string_view::npos;
  Arg whole = b.arg(2);
  b.source(has_fourth && !is_pred && !is_policy ? b.arg(3) : whole, Type::kB32);
  if (is_pred)
    b.pred(b.arg(3));
  else
    b.none();
  b.in.run = copy_issue;
}

void commit(Warp& w, const Instr&, uint32_t mask) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) ++w.copy_group[__builtin_ctz(rest)];
}

// mode 1: wait_all; else imm groups may stay in flight
void wait(Warp& w, const Instr& in, uint32_t mask) {
  size_t kept = 0;
  for (size_t c = 0; c < w.copies.size(); ++c) {
    AsyncCopy& copy = w.copies[c];
    bool lands = mask >> copy.lane & 1 &&
                 (in.mode || copy.group + static_cast<uint64_t>(in.imm) < w.copy_group[copy.lane]);
    if (!lands) {
      w.copies[kept++] = copy;
      continue;
    }
    MemoryRequest m;
    m.size = copy.size;
    m.space = Space::kShared;
    m.access = Access::kAsyncLand;
    m.address[copy.lane] = copy.shared_offset;
    access_memory(w, m, 1u << copy.lane);
    std::memcpy(m.pointer[copy.lane], copy.data.data(), copy.size);
  }
  w.copies.resize(kept);
}

void decode_cp(InstrBuilder& b) {
  if (!b.take("async") || b.take("bulk")) b.fail("unsupported form");
  if (b.take("commit_group")) {
    b.in.run = commit;
    return b.want_args(0, 0);
  }
  if (b.take("wait_all")) {
    b.in.mode = 1;
    b.in.run = wait;
    return b.want_args(0, 0);
  }
  if (b.take("wait_group")) {
    b.want_args(1, 1);
    if (b.arg(0).kind != Arg::kImmediate || b.arg(0).value < 0) b.fail("expected a group count");
    b.in.imm = b.arg(0).value;
    b.in.run = wait;
    return;
  }
  decode_copy(b);
}

}  // namespace

const OpRow kAsyncRows[] = {{"cp", OpClass::kAsyncCopy, decode_cp},
                            {nullptr, OpClass::kAsyncCopy, nullptr}};

}  // namespace rnk::emu
