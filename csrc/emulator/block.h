// A thread block being executed, and the launch it belongs to.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "counters.h"
#include "global_memory.h"
#include "program.h"
#include "shadow.h"
#include "suspicions.h"
#include "warp.h"

namespace rnk::emu {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

struct LaunchOptions {
  uint64_t seed = 0;
  bool detect_races = true;  // races, uninitialised shared memory, cp.async before its wait
  bool count_memory = true;  // sectors, wavefronts, distinct bytes
  uint64_t max_warp_instructions = uint64_t{1} << 32;
  int threads = 0;  // 0: all cores
};

struct Launch {
  const Kernel* kernel = nullptr;
  Dim3 grid, block;
  uint32_t dynamic_shared = 0;
  std::vector<char> params;
  LaunchOptions options;
  GlobalMemory memory;
  SyncLogs sync_logs;
  Suspicions suspicions;
  std::atomic<uint64_t> next_block{0};
  std::atomic<uint64_t> executed{0};  // warp instructions
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> idle_slices{0};  // in a row, of warps that polled and changed nothing
};

struct Barrier {
  uint32_t expected = 0;  // threads; 0: every live warp
  uint32_t arrived = 0;
  bool has_tail = false;  // Kernel::tail tells who went around it
  std::vector<Warp*> waiting;
  std::vector<WarpClock*> clocks;
  // bar.red: running result, and who wants it
  struct Reduction {
    Warp* warp;
    const Instr* in;
    uint32_t mask;
  };
  uint32_t reduced_and = 1, reduced_or = 0, reduced_count = 0;
  std::vector<Reduction> reductions;
};

// Reused for one block after another by its host thread.
struct Block {
  explicit Block(Launch& launch);
  void run(uint64_t linear_index);

  Launch& launch;
  uint32_t warp_count, threads;
  uint32_t uid_base = 1;
  Dim3 index;
  uint32_t shared_bytes;
  std::vector<char> shared_storage;
  char* shared = nullptr;
  Shadow shared_shadow;
  SyncLogs shared_logs;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  Counters counters;
  Coverage coverage;

  // bar.sync / bar.arrive by one warp; threads 0 means all.
  void arrive(Warp& w, const Instr& in, uint32_t barrier, uint32_t threads, bool wait);
  std::string describe(const Record& r) const;
  std::string located(const Fault& f, const Warp& w) const;  // the message with its place
  std::string thread_name(uint64_t block, uint32_t warp, int lane) const;

 private:
  void reset(uint64_t linear_index);
  void fill_specials(Warp& w);
  uint32_t special_value(Special s, const Warp& w, uint32_t lane) const;
  void schedule();
  void complete(Barrier& b);
  void check_all_warp_barriers();
  void check_progress(const Warp& w, uint32_t executed);
  [[noreturn]] void report_around(const Warp& around, const Barrier& b);
  [[noreturn]] void report_deadlock();
  [[noreturn]] void rethrow(const Fault& f, const Warp& w);
  uint64_t random();

  uint64_t linear_ = 0, random_state_ = 0;
  std::vector<char> register_storage_, local_storage_;
};

}  // namespace rnk::emu
