// A warp: 32 lanes over one register file, the group of lanes that runs next (deepest call first,
// then the lowest pc), and what it waits for.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "clock.h"
#include "error.h"
#include "program.h"

namespace rnk::emu {

struct Block;

constexpr uint32_t kNoPc = 0xFFFFFFFF;

struct AsyncCopy {
  uint32_t instruction;
  uint32_t shared_offset;
  uint32_t group;  // of its lane
  uint8_t lane, size;
  std::array<uint8_t, 16> data;
};

struct Warp {
  enum State : uint8_t { kReady, kAtBarrier, kDone };

  Block* block = nullptr;
  char* regs = nullptr;
  const char* consts = nullptr;
  char* local = nullptr;
  uint32_t index = 0;
  State state = kReady;
  uint64_t ticks = 0;            // clock reads
  bool polled = false;           // a strong read since the slice began
  bool changed = false;          // a store, or an atomic that changed its word, since then
  bool yield = false;            // nanosleep: give other warps a turn
  uint32_t pc = 0, current = 0;  // next instruction; the one being executed
  uint32_t active = 0, live = 0, waiting = 0;
  uint32_t passed_tail = 0;     // lanes that will reach no barrier any more (control_flow.h)
  uint32_t reconverge = kNoPc;  // run the group only while pc is below
  uint32_t depth = 0;
  uint32_t carry = 0;  // condition code CC.CF, a bit a lane
  std::array<uint32_t, 32> lane_pc{};
  std::array<uint8_t, 32> lane_depth{};
  std::vector<std::array<uint32_t, 32>> return_pc;
  WarpClock clock;
  std::vector<AsyncCopy> copies;
  std::array<uint32_t, 32> copy_group{};

  template <class T>
  T* dst(const Operand& o) {
    return reinterpret_cast<T*>(regs + o.offset);
  }
  template <class T>
  const T* src(const Operand& o) const {
    return reinterpret_cast<const T*>((o.kind == Operand::kConstant ? consts : regs) + o.offset);
  }
  uint32_t predicate(const Operand& o) const {
    uint32_t bits = *src<uint32_t>(o);
    return o.negated ? ~bits : bits;
  }
  void set_predicate(const Operand& o, uint32_t mask, uint32_t bits) {
    if (o.kind == Operand::kNone) return;
    uint32_t* p = dst<uint32_t>(o);
    *p = (*p & ~mask) | (bits & mask);
  }
  // Any lane-vector operand, zero-extended.
  void read_lanes(const Operand& o, uint64_t* out) const;
  void write_lanes(const Operand& o, uint32_t mask, const uint64_t* values);

  uint32_t run(uint32_t quantum);  // instructions executed
  void select_group();             // after any change of lane_pc, depth, waiting or live
  void rotate();                   // runs another group next, whatever its pc
  void park();                     // stores pc and depth of the active lanes
  void jump(uint32_t mask, uint32_t target);
  void leave(uint32_t mask);  // lanes exit
  // True when all of need runs this instruction now; else the lanes in mask wait here.
  bool converge(uint32_t need, uint32_t mask);
  void wait_here(uint32_t mask);  // these lanes run the current instruction again, with others
  void release(uint32_t mask);    // these waiting lanes go on after the instruction they wait at
  // Throws when one of the needed lanes has gone around the instruction and exited.
  void check_tail(const Instr& in, uint32_t need, uint32_t mask) const;
  Record record(int lane, bool strong, bool block_scope) const {
    return {uid(), clock.epoch(),
            current << 7 | static_cast<uint32_t>(lane) << 2 |
                static_cast<uint32_t>(block_scope) << 1 | static_cast<uint32_t>(strong)};
  }
  uint32_t uid() const;

 private:
  void take_group(uint32_t at_depth, uint32_t at_pc);
  void report_divergence() const;
};

}  // namespace rnk::emu
