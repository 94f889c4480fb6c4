// Branches, calls of device functions, exit and trap; vprintf and __assertfail of the CUDA headers.
#include <algorithm>
#include <cstdio>

#include "block.h"
#include "device_printf.h"
#include "memory_access.h"
#include "ops.h"

namespace rnk::emu {
namespace {

void branch(Warp& w, const Instr& in, uint32_t mask) { w.jump(mask, in.target); }
void decode_bra(InstrBuilder& b) {
  b.take("uni");
  b.want_args(1, 1);
  if (b.arg(0).kind != Arg::kSymbol) b.fail("expected a label");
  b.in.target = b.decoder().label(b.statement(), b.arg(0).name);
  b.in.flags |= kBranches;
  b.in.run = branch;
}

void branch_table(Warp& w, const Instr& in, uint32_t mask) {
  const auto& targets = *static_cast<const std::vector<uint32_t>*>(in.aux);
  const uint32_t* index = w.src<uint32_t>(in.ops[0]);
  w.park();
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    if (index[i] >= targets.size())
      throw Fault{"out_of_bounds", "brx.idx index " + std::to_string(index[i]) + " has no target",
                  i};
    w.lane_pc[i] = targets[index[i]];
  }
  w.select_group();
}
void decode_brx(InstrBuilder& b) {
  if (!b.take("idx")) b.fail("unsupported form");
  b.take("uni");
  b.want_args(2, 2);
  b.source(b.arg(0), Type::kU32);
  const auto& lists = b.decoder().current().branch_targets;
  auto it = lists.find(b.arg(1).name);
  if (it == lists.end()) b.fail("no such .branchtargets");
  std::vector<uint32_t> targets;
  for (const std::string& name : it->second)
    targets.push_back(b.decoder().label(b.statement(), name));
  b.in.aux = b.decoder().own(std::move(targets));
  b.in.flags |= kBranches;
  b.in.run = branch_table;
}

void leave(Warp& w, const Instr&, uint32_t mask) { w.leave(mask); }
void decode_exit(InstrBuilder& b) {
  b.want_args(0, 0);
  b.in.flags |= kLeaves;
  b.in.run = leave;
}

void copy_frame(Warp& w, uint32_t mask, const std::vector<CallTarget::Copy>& copies) {
  size_t bytes = w.block->launch.kernel->local_bytes;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    char* frame = w.local + bytes * static_cast<size_t>(__builtin_ctz(rest));
    for (const CallTarget::Copy& c : copies) std::memmove(frame + c.to, frame + c.from, c.bytes);
  }
}

// The callee runs one level deeper; its frame is static, so lanes need only their return address.
void call(Warp& w, const Instr& in, uint32_t mask) {
  copy_frame(w, mask, static_cast<const CallTarget*>(in.aux)->arguments);
  w.park();
  if (w.return_pc.size() <= w.depth) w.return_pc.resize(w.depth + 1);
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    w.return_pc[w.depth][i] = w.current;
    w.lane_pc[i] = in.target;
    ++w.lane_depth[i];
  }
  w.select_group();
}

void call_printf(Warp& w, const Instr& in, uint32_t mask) {
  const CallTarget& t = *static_cast<const CallTarget*>(in.aux);
  size_t bytes = w.block->launch.kernel->local_bytes;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    char* frame = w.local + bytes * static_cast<size_t>(i);
    device_printf(w, i, frame + t.arguments.at(0).from, frame + t.arguments.at(1).from);
    if (!t.results.empty()) std::memset(frame + t.results[0].to, 0, 4);
  }
}

void call_assert(Warp& w, const Instr& in, uint32_t mask) {
  const CallTarget& t = *static_cast<const CallTarget*>(in.aux);
  int lane = __builtin_ctz(mask);
  char* frame = w.local + size_t{w.block->launch.kernel->local_bytes} * static_cast<size_t>(lane);
  std::string text = device_string(w, lane, frame + t.arguments.at(0).from);
  throw Fault{"assertion", "device assertion failed: " + text, lane};
}

void leave_function(Warp& w, const Instr&, uint32_t mask) {
  if (w.depth == 0) return w.leave(mask);
  w.park();
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    int i = __builtin_ctz(rest);
    uint32_t from = w.return_pc[w.depth - 1][i];
    const Instr& caller = w.block->launch.kernel->code[from];
    copy_frame(w, 1u << i, static_cast<const CallTarget*>(caller.aux)->results);
    w.lane_pc[i] = from + 1;
    --w.lane_depth[i];
  }
  w.select_group();
}
void decode_ret(InstrBuilder& b) {
  b.take("uni");
  b.want_args(0, 0);
  b.in.flags |= kLeaves;
  b.in.run = leave_function;
}

// Copies between the caller's .param variables (list) and the callee's (formal).
std::vector<CallTarget::Copy> match_params(InstrBuilder& b, const Arg& list,
                                           const std::vector<Variable>& formal, int callee,
                                           bool results) {
  if (list.items.size() != formal.size()) b.fail("wrong number of call arguments");
  std::vector<CallTarget::Copy> copies;
  for (size_t i = 0; i < formal.size(); ++i) {
    uint64_t here;
    if (list.items[i].kind != Arg::kSymbol ||
        !b.decoder().symbol_address(list.items[i].name, &here))
      b.fail("call arguments must be .param variables");
    auto mine = static_cast<uint32_t>(here & kOffsetMask);
    uint32_t theirs = callee >= 0 ? b.decoder().frame_offset(callee, formal[i]) : 0;
    auto bytes = static_cast<uint32_t>(formal[i].bytes);
    if (results)
      copies.push_back({theirs, mine, bytes});
    else
      copies.push_back({mine, theirs, bytes});
  }
  return copies;
}

// call{.uni} (results), name, (arguments)
void decode_call(InstrBuilder& b) {
  b.take("uni");
  size_t next = 0;
  Arg empty;
  const Arg& results = b.arg(0).kind == Arg::kList ? b.arg(next++) : empty;
  const Arg& name = b.arg(next++);
  const Arg& arguments = next < b.arg_count() ? b.arg(next++) : empty;
  if (name.kind != Arg::kSymbol) b.fail("indirect calls are not supported");
  const auto& index = b.decoder().kernel().module->function_index;
  auto it = index.find(name.name);
  if (it == index.end()) b.fail("unknown function '" + name.name + "'");
  const Function& f = *it->second;
  CallTarget target;
  target.name = name.name;
  int callee = b.decoder().call(name.name);
  target.arguments = match_params(b, arguments, f.params, callee, false);
  target.results = match_params(b, results, f.results, callee, true);
  if (callee >= 0)
    b.in.flags |= kCalls, b.in.run = call;
  else if (name.name == "vprintf")
    b.in.run = call_printf;
  else if (name.name == "__assertfail")
    b.in.run = call_assert;
  else
    b.fail("function '" + name.name + "' has no body");
  b.in.aux = b.decoder().own(std::move(target));
  b.want_args(next, next);
}

void trap(Warp&, const Instr&, uint32_t mask) {
  throw Fault{"trap", "the kernel executed a trap", __builtin_ctz(mask)};
}
void decode_trap(InstrBuilder& b) {
  b.want_args(0, 0);
  b.in.flags |= kLeaves;
  b.in.run = trap;
}

void nothing(Warp&, const Instr&, uint32_t) {}
void decode_pmevent(InstrBuilder& b) {
  b.take("mask");
  b.in.run = nothing;
}

}  // namespace

const OpRow kControlRows[] = {
    {"bra", OpClass::kControl, decode_bra},    {"brx", OpClass::kControl, decode_brx},
    {"call", OpClass::kControl, decode_call},  {"ret", OpClass::kControl, decode_ret},
    {"exit", OpClass::kControl, decode_exit},  {"trap", OpClass::kControl, decode_trap},
    {"brkpt", OpClass::kControl, decode_trap}, {"pmevent", OpClass::kControl, decode_pmevent},
    {nullptr, OpClass::kControl, nullptr}};

}  // namespace rnk::emu
