#include "warp.h"

#include <algorithm>

#include "block.h"

namespace rnk::emu {

uint32_t Warp::uid() const { return block->uid_base + index; }

uint32_t Warp::run(uint32_t quantum) {
  uint32_t left = quantum;
  const Instr* code = block->launch.kernel->code.data();
  uint64_t* warp_counts = block->coverage.warps.data();
  uint64_t* thread_counts = block->coverage.threads.data();
  state = kReady;
  yield = polled = changed = false;
  for (; left && state == kReady && !yield; --left) {
    if (pc >= reconverge) {
      park();
      select_group();
    }
    const Instr& in = code[pc];
    uint32_t mask = active;
    if (in.guard >= 0) {
      uint32_t p = *reinterpret_cast<const uint32_t*>(regs + in.guard);
      mask &= in.guard_negated ? ~p : p;
    }
    ++warp_counts[pc];
    thread_counts[pc] += static_cast<uint64_t>(__builtin_popcount(mask));
    current = pc++;
    if (mask) in.run(*this, in, mask);
  }
  // Lanes that poll memory may wait for a lane further on: let the others run for once.
  if (state == kReady && active != live && polled) rotate();
  return quantum - left;
}

void Warp::park() {
  for (uint32_t m = active; m; m &= m - 1) {
    int lane = __builtin_ctz(m);
    lane_pc[lane] = pc;
    lane_depth[lane] = static_cast<uint8_t>(depth);
  }
}

void Warp::select_group() {
  uint32_t runnable = live & ~waiting;
  if (!runnable) {
    if (!live) {
      state = kDone;
      return;
    }
    report_divergence();
  }
  uint32_t best_depth = 0, best_pc = kNoPc;
  for (uint32_t m = runnable; m; m &= m - 1) {
    int lane = __builtin_ctz(m);
    uint32_t d = lane_depth[lane];
    if (d > best_depth || (d == best_depth && lane_pc[lane] < best_pc)) {
      best_depth = d;
      best_pc = lane_pc[lane];
    }
  }
  take_group(best_depth, best_pc);
}

void Warp::take_group(uint32_t at_depth, uint32_t at_pc) {
  active = 0;
  reconverge = kNoPc;
  for (uint32_t m = live; m; m &= m - 1) {
    int lane = __builtin_ctz(m);
    if (lane_depth[lane] != at_depth) continue;
    if (lane_pc[lane] == at_pc)
      active |= 1u << lane;
    else if (lane_pc[lane] > at_pc)
      reconverge = std::min(reconverge, lane_pc[lane]);
  }
  waiting &= ~active;
  pc = at_pc;
  depth = at_depth;
}

void Warp::rotate() {
  uint32_t others = live & ~waiting & ~active;
  if (!others) return;
  park();
  uint32_t after = others & ~((2u << (31 - __builtin_clz(active))) - 1);
  int lane = __builtin_ctz(after ? after : others);
  take_group(lane_depth[lane], lane_pc[lane]);
}

void Warp::report_divergence() const {
  int lane = __builtin_ctz(waiting);
  const Instr& in = block->launch.kernel->code[lane_pc[lane]];
  throw Fault{"barrier",
              "divergent .sync or barrier: lanes wait at PTX line " + std::to_string(in.line) +
                  " for lanes of their warp that will not come",
              lane};
}

void Warp::jump(uint32_t mask, uint32_t target) {
  if (mask == active && (active == live || (target < reconverge && target > current))) {
    pc = target;
    return;
  }
  park();
  for (uint32_t m = mask; m; m &= m - 1) lane_pc[__builtin_ctz(m)] = target;
  select_group();
}

void Warp::leave(uint32_t mask) {
  park();
  live &= ~mask;
  waiting = 0;
  select_group();
}

bool Warp::converge(uint32_t need, uint32_t mask) {
  if ((need & live & ~mask) == 0) return true;
  wait_here(mask);
  return false;
}

void Warp::wait_here(uint32_t mask) {
  park();
  for (uint32_t m = mask; m; m &= m - 1) lane_pc[__builtin_ctz(m)] = current;
  waiting |= mask;
  select_group();
}

void Warp::release(uint32_t mask) {
  park();
  for (uint32_t m = mask; m; m &= m - 1) ++lane_pc[__builtin_ctz(m)];
  waiting &= ~mask;
  select_group();
}

void Warp::check_tail(const Instr& in, uint32_t need, uint32_t mask) const {
  uint32_t around = need & passed_tail & ~mask;
  if (!(in.flags & kHasTail) || !around) return;
  throw Fault{"barrier",
              "divergent .sync or barrier: lane " + std::to_string(__builtin_ctz(around)) +
                  " of this warp went around it",
              __builtin_ctz(mask)};
}

void Warp::read_lanes(const Operand& o, uint64_t* out) const {
  switch (o.width) {
    case 2:
      for (int i = 0; i < 32; ++i) out[i] = src<uint16_t>(o)[i];
      return;
    case 4:
      for (int i = 0; i < 32; ++i) out[i] = src<uint32_t>(o)[i];
      return;
    default:
      for (int i = 0; i < 32; ++i) out[i] = src<uint64_t>(o)[i];
      return;
  }
}

void Warp::write_lanes(const Operand& o, uint32_t mask, const uint64_t* values) {
  auto write = [&](auto* d) {
    using T = std::remove_reference_t<decltype(*d)>;
    for (int i = 0; i < 32; ++i) d[i] = mask >> i & 1 ? static_cast<T>(values[i]) : d[i];
  };
  switch (o.width) {
    case 2:
      return write(dst<uint16_t>(o));
    case 4:
      return write(dst<uint32_t>(o));
    case 8:
      return write(dst<uint64_t>(o));
    default:
      return;  // the sink '_'
  }
}

}  // namespace rnk::emu
