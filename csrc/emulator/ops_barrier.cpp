// bar and barrier, bar.warp.sync, membar and fence, nanosleep.
#include "block.h"
#include "ops.h"

namespace rnk::emu {
namespace {

uint32_t uniform(const Warp& w, const Operand& o, uint32_t mask) {
  const uint32_t* v = w.src<uint32_t>(o);
  uint32_t first = v[__builtin_ctz(mask)];
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    if (v[i] != first) throw Fault{"barrier", "lanes of one warp name different barriers", i};
  }
  return first;
}

// ops: barrier, thread count, [d, predicate]; mode sync, arrive, red popc, red and, red or
void barrier(Warp& w, const Instr& in, uint32_t mask) {
  if (!w.converge(0xFFFFFFFF, mask)) return;
  w.check_tail(in, 0xFFFFFFFF, mask);
  uint32_t id = uniform(w, in.ops[0], mask), threads = uniform(w, in.ops[1], mask);
  if (id > 15) throw Fault{"barrier", "barrier " + std::to_string(id) + " does not exist", -1};
  Barrier& b = w.block->barriers[id];
  if (in.mode >= 2) {
    uint32_t p = w.predicate(in.ops[3]) & mask;
    b.reduced_count += static_cast<uint32_t>(__builtin_popcount(p));
    b.reduced_and &= p == mask;
    b.reduced_or |= p != 0;
    b.reductions.push_back({&w, &in, mask});
  }
  w.block->arrive(w, in, id, threads, in.mode != 1);
}

// bar.warp.sync members: lanes may arrive from different instructions
void warp_sync(Warp& w, const Instr& in, uint32_t mask) {
  const uint32_t* masks = w.src<uint32_t>(in.ops[0]);
  const Instr* code = w.block->launch.kernel->code.data();
  uint32_t stay = 0, elsewhere = 0;
  for (uint32_t rest = mask; rest;) {
    uint32_t members = masks[__builtin_ctz(rest)], group = 0, others = 0;
    for (uint32_t m = rest; m; m &= m - 1)
      if (masks[__builtin_ctz(m)] == members) group |= m & -m;
    rest &= ~group;
    if (group & ~members)
      throw Fault{"barrier", "bar.warp.sync by a lane outside its member mask",
                  __builtin_ctz(group & ~members)};
    for (uint32_t m = w.waiting & members & ~mask; m; m &= m - 1) {
      int i = __builtin_ctz(m);
      const Instr& other = code[w.lane_pc[i]];
      if (other.run == warp_sync && w.src<uint32_t>(other.ops[0])[i] == members) others |= m & -m;
    }
    if (members & w.live & ~(group | others)) {
      stay |= group;
      continue;
    }
    w.check_tail(in, members, group | others);
    w.clock.sync_lanes(group | others, (group | others) == w.live);
    elsewhere |= others;
  }
  if (elsewhere) w.release(elsewhere);
  if (stay) w.wait_here(stay);
}

void decode_barrier(InstrBuilder& b) {
  int kind = b.take_any({"sync", "arrive", "red"});
  if (kind < 0) b.fail("unsupported form");
  if (b.take("cluster")) b.fail("unsupported form");
  b.take("aligned");
  size_t next = 0;
  const Arg* d = nullptr;
  if (kind == 2) {
    int op = b.take_any({"popc", "and", "or"});
    if (op < 0) b.fail("unknown reduction");
    b.take_type();
    kind = 2 + op;
    d = &b.arg(next++);
  }
  b.in.mode = static_cast<uint8_t>(kind);
  b.source(b.arg(next++), Type::kB32);
  bool has_count = next < b.arg_count() && !(kind >= 2 && next + 1 == b.arg_count());
  Arg all;
  all.kind = Arg::kImmediate;
  b.source(has_count ? b.arg(next++) : all, Type::kB32);
  if (kind >= 2) {
    if (kind == 2)
      b.reg(*d, 4);
    else
      b.pred(*d);
    b.pred(b.arg(next++));
  }
  if (kind == 1 && !has_count) b.fail("needs a thread count");
  b.want_args(next, next);
  b.in.flags |= kSynchronises;
  b.in.run = barrier;
}

void decode_bar(InstrBuilder& b) {
  if (b.statement().opcode[3] == '.' && b.take("warp")) {
    if (!b.take("sync")) b.fail("needs .sync");
    b.want_args(1, 1);
    b.source(b.arg(0), Type::kB32);
    b.in.flags |= kSynchronises;
    b.in.run = warp_sync;
    return;
  }
  b.take_any({"cta"});
  b.take("aligned");
  decode_barrier(b);
}

void fence(Warp& w, const Instr& in, uint32_t mask) {
  w.clock.fence(mask, mask == w.live, in.flags & kBlockScope);
}
void decode_fence(InstrBuilder& b) {
  if (b.take("proxy")) b.fail("unsupported form");
  b.take_any({"sc", "acq_rel", "acquire", "release"});
  if (b.take_scope()) b.in.flags |= kBlockScope;
  b.want_args(0, 0);
  b.in.run = fence;
}

void nanosleep(Warp& w, const Instr&, uint32_t) { w.yield = true; }
void decode_nanosleep(InstrBuilder& b) {
  b.take_type();
  b.want_args(1, 1);
  b.source(b.arg(0), Type::kU32);
  b.in.run = nanosleep;
}

}  // namespace

const OpRow kBarrierRows[] = {{"bar", OpClass::kBarrier, decode_bar},
                              {"barrier", OpClass::kBarrier, decode_bar},
                              {"membar", OpClass::kBarrier, decode_fence},
                              {"fence", OpClass::kBarrier, decode_fence},
                              {"nanosleep", OpClass::kControl, decode_nanosleep},
                              {nullptr, OpClass::kBarrier, nullptr}};

}  // namespace rnk::emu
