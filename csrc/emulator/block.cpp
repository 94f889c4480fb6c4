#include "block.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "error.h"

namespace rnk::emu {
namespace {

constexpr uint32_t kMinQuantum = 64, kQuantumSpread = 1024;
// Seconds of polling by every warp that runs, while no memory changes.
constexpr uint32_t kMaxIdleSlices = 10000;

char* align64(std::vector<char>& v) {
  auto p = reinterpret_cast<uintptr_t>(v.data());
  return reinterpret_cast<char*>((p + 63) & ~uintptr_t{63});
}

}  // namespace

Block::Block(Launch& l)
    : launch(l),
      warp_count(static_cast<uint32_t>((l.block.count() + 31) / 32)),
      threads(static_cast<uint32_t>(l.block.count())) {
  const Kernel& k = *l.kernel;
  shared_bytes =
      l.dynamic_shared ? (k.static_shared + 15) / 16 * 16 + l.dynamic_shared : k.static_shared;
  shared_storage.resize(shared_bytes + 64);
  shared = align64(shared_storage);
  shared_shadow.reset(0, shared_bytes);
  size_t regs = (k.register_bytes + 63) / 64 * 64, local = size_t{k.local_bytes} * 32;
  register_storage_.resize(regs * warp_count + 64);
  local_storage_.resize(local * warp_count + 64);
  coverage.resize(k.code.size());
  warps.resize(warp_count);
  for (uint32_t i = 0; i < warp_count; ++i) {
    warps[i].block = this;
    warps[i].index = i;
    warps[i].regs = align64(register_storage_) + regs * i;
    warps[i].local = align64(local_storage_) + local * i;
    warps[i].consts = k.constant_base();
  }
}

void Block::reset(uint64_t linear_index) {
  linear_ = linear_index;
  uid_base = 1 + static_cast<uint32_t>(linear_index * warp_count);
  index.x = static_cast<uint32_t>(linear_index % launch.grid.x);
  index.y = static_cast<uint32_t>(linear_index / launch.grid.x % launch.grid.y);
  index.z = static_cast<uint32_t>(linear_index / launch.grid.x / launch.grid.y);
  random_state_ = launch.options.seed * 0x9E3779B97F4A7C15ull + linear_index + 1;
  for (Barrier& b : barriers) b = Barrier{};
  for (Warp& w : warps) {
    uint32_t lanes = std::min<uint32_t>(32, threads - w.index * 32);
    w.live = w.active = lanes == 32 ? 0xFFFFFFFF : (1u << lanes) - 1;
    w.waiting = w.passed_tail = w.pc = w.depth = 0;
    w.reconverge = kNoPc;
    w.state = Warp::kReady;
    w.lane_depth.fill(0);
    w.copies.clear();
    w.copy_group.fill(0);
    w.clock.reset(uid_base, w.index, warp_count);
    fill_specials(w);
  }
  ++counters.blocks;
  counters.warps += warp_count;
}

uint32_t Block::special_value(Special s, const Warp& w, uint32_t lane) const {
  const Dim3 &b = launch.block, &g = launch.grid;
  uint32_t t = w.index * 32 + lane;
  switch (s) {
    case Special::kTidX:
      return t % b.x;
    case Special::kTidY:
      return t / b.x % b.y;
    case Special::kTidZ:
      return t / b.x / b.y;
    case Special::kNtidX:
      return b.x;
    case Special::kNtidY:
      return b.y;
    case Special::kNtidZ:
      return b.z;
    case Special::kCtaidX:
      return index.x;
    case Special::kCtaidY:
      return index.y;
    case Special::kCtaidZ:
      return index.z;
    case Special::kNctaidX:
      return g.x;
    case Special::kNctaidY:
      return g.y;
    case Special::kNctaidZ:
      return g.z;
    case Special::kLaneid:
      return lane;
    case Special::kWarpid:
      return w.index;
    case Special::kNwarpid:
      return warp_count;
    case Special::kLanemaskEq:
      return 1u << lane;
    case Special::kLanemaskLt:
      return (1u << lane) - 1;
    case Special::kLanemaskLe:
      return (2u << lane) - 1;
    case Special::kLanemaskGt:
      return ~((2u << lane) - 1);
    case Special::kLanemaskGe:
      return ~((1u << lane) - 1);
    case Special::kDynamicSmem:
      return launch.dynamic_shared;
    case Special::kTotalSmem:
      return shared_bytes;
    case Special::kReservedSmem:
      return 0xFFFFFC00;  // the system's own shared memory is not there: a use is out of bounds
    case Special::kOne:
      return 1;
    default:
      return 0;
  }
}

void Block::fill_specials(Warp& w) {
  const auto& offsets = launch.kernel->special_offset;
  for (size_t s = 0; s < offsets.size(); ++s) {
    if (offsets[s] < 0) continue;
    auto* out = reinterpret_cast<uint32_t*>(w.regs + offsets[s]);
    for (uint32_t lane = 0; lane < 32; ++lane)
      out[lane] = special_value(static_cast<Special>(s), w, lane);
  }
}

uint64_t Block::random() {  // splitmix64
  uint64_t z = (random_state_ += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

void Block::run(uint64_t linear_index) {
  reset(linear_index);
  schedule();
}

void Block::schedule() {
  std::vector<Warp*> ready;
  for (;;) {
    ready.clear();
    bool done = true;
    for (Warp& w : warps) {
      if (w.state == Warp::kReady) ready.push_back(&w);
      done &= w.state == Warp::kDone;
    }
    if (done) return;
    if (ready.empty()) report_deadlock();
    bool busy = false;
    for (size_t n = ready.size(); n; --n) {
      std::swap(ready[random() % n], ready[n - 1]);
      Warp& w = *ready[n - 1];
      uint32_t quantum = kMinQuantum + static_cast<uint32_t>(random() % kQuantumSpread);
      uint32_t executed = 0;
      try {
        executed = w.run(quantum);
        busy |= w.state == Warp::kReady;
        if (w.state == Warp::kDone) check_all_warp_barriers();
      } catch (const Fault& f) {
        rethrow(f, w);
      }
      if (launch.stop.load(std::memory_order_relaxed)) return;
      check_progress(w, executed);
    }
    if (busy) std::this_thread::yield();  // it may wait for a block on another host thread
  }
}

void Block::check_progress(const Warp& w, uint32_t executed) {
  uint64_t total = launch.executed.fetch_add(executed, std::memory_order_relaxed) + executed;
  if (total > launch.options.max_warp_instructions)
    rethrow(Fault{"budget",
                  "the launch passed its limit of " +
                      std::to_string(launch.options.max_warp_instructions) +
                      " warp instructions; is there an endless loop?",
                  -1},
            w);
  if (!w.polled || w.changed || w.state != Warp::kReady)
    launch.idle_slices.store(0, std::memory_order_relaxed);
  else if (launch.idle_slices.fetch_add(1, std::memory_order_relaxed) > kMaxIdleSlices)
    rethrow(Fault{"deadlock", "all warps that run poll memory that nothing changes any more", -1},
            w);
}

void Block::arrive(Warp& w, const Instr& in, uint32_t id, uint32_t count, bool wait) {
  Barrier& b = barriers[id];
  if (count && (count % 32 || count > warp_count * 32))
    throw Fault{"barrier",
                "barrier thread count " + std::to_string(count) +
                    " is no multiple of 32 up to the block's size",
                -1};
  if (b.arrived && b.expected != count)
    throw Fault{"barrier", "barrier " + std::to_string(id) + " is used with different counts", -1};
  b.expected = count;
  b.has_tail |= (in.flags & kHasTail) != 0;
  b.arrived += 32;
  b.clocks.push_back(&w.clock);
  ++counters.barriers;
  if (wait) {
    w.state = Warp::kAtBarrier;
    b.waiting.push_back(&w);
  }
  if (count && b.arrived >= count) complete(b);
  if (!count) check_all_warp_barriers();
}

// Barriers without a count wait for every warp that has not exited.
void Block::check_all_warp_barriers() {
  uint32_t running = 0;
  for (const Warp& w : warps) running += w.state != Warp::kDone;
  for (Barrier& b : barriers)
    if (b.arrived && !b.expected && b.arrived >= running * 32) {
      for (Warp& w : warps) {
        if (w.state != Warp::kDone) continue;
        if (b.has_tail && w.passed_tail) report_around(w, b);
        b.clocks.push_back(&w.clock);
      }
      complete(b);
    }
}

void Block::complete(Barrier& b) {
  WarpClock::join(b.clocks);
  for (Warp* w : b.waiting) w->state = Warp::kReady;
  for (const Barrier::Reduction& r : b.reductions) {
    const Operand& d = r.in->ops[2];
    if (r.in->mode == 2) {
      uint64_t v[32];
      std::fill(v, v + 32, b.reduced_count);
      r.warp->write_lanes(d, r.mask, v);
    } else {
      bool result = r.in->mode == 3 ? b.reduced_and : b.reduced_or;
      r.warp->set_predicate(d, r.mask, result ? ~0u : 0u);
    }
  }
  b = Barrier{};
}

std::string Block::thread_name(uint64_t block, uint32_t warp, int lane) const {
  auto triple = [](uint64_t i, const Dim3& d) {
    return "(" + std::to_string(i % d.x) + "," + std::to_string(i / d.x % d.y) + "," +
           std::to_string(i / d.x / d.y) + ")";
  };
  std::string s = "block " + triple(block, launch.grid);
  if (lane < 0) return s + " warp " + std::to_string(warp);
  return s + " thread " + triple(uint64_t{warp} * 32 + static_cast<uint64_t>(lane), launch.block);
}

std::string Block::describe(const Record& r) const {
  const Instr& in = launch.kernel->code[r.instruction()];
  return thread_name((r.uid - 1) / warp_count, (r.uid - 1) % warp_count,
                     static_cast<int>(r.lane())) +
         " at PTX line " + std::to_string(in.line);
}

void Block::report_around(const Warp& around, const Barrier& b) {
  Fault f{"barrier",
          "divergent barrier: " + thread_name(linear_, around.index, -1) + " went around it", -1};
  if (b.waiting.empty()) throw f;
  rethrow(f, *b.waiting[0]);
}

void Block::report_deadlock() {
  for (const Warp& w : warps) {
    if (w.state != Warp::kAtBarrier) continue;
    rethrow(Fault{"barrier",
                  "deadlock: this warp waits at a barrier that the others will not reach", -1},
            w);
  }
  throw Error("barrier", "deadlock in kernel " + launch.kernel->name);
}

std::string Block::located(const Fault& f, const Warp& w) const {
  const Kernel& k = *launch.kernel;
  const Instr& in = k.code[w.current];
  std::string_view text = k.module->text;
  for (uint32_t line = 1; line < in.line; ++line) text.remove_prefix(text.find('\n') + 1);
  text = text.substr(0, std::min<size_t>(text.find('\n'), 160));
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::string where = "kernel " + k.name + ", " + thread_name(linear_, w.index, f.lane) +
                      ", PTX line " + std::to_string(in.line) + " '" + std::string(text) + "'";
  auto file = k.module->files.find(in.source_file);
  if (file != k.module->files.end())
    where += " (" + file->second + ":" + std::to_string(in.source_line) + ")";
  return f.message + "; " + where;
}

void Block::rethrow(const Fault& f, const Warp& w) { throw Error(f.kind, located(f, w)); }

}  // namespace rnk::emu
