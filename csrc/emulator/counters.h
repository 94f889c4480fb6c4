// What a launch did, in the units a GPU programmer counts.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "program.h"

namespace rnk::emu {

struct Counters {
  uint64_t warp_instructions = 0, thread_instructions = 0;
  std::array<uint64_t, static_cast<size_t>(OpClass::kCount)> by_class{};  // thread-instructions
  uint64_t global_load_sectors = 0, global_load_sectors_ideal = 0;        // 32-byte sectors
  uint64_t global_store_sectors = 0, global_store_sectors_ideal = 0;
  uint64_t global_bytes_loaded = 0, global_bytes_stored = 0;     // as requested by lanes
  uint64_t distinct_bytes_read = 0, distinct_bytes_written = 0;  // the DRAM floor
  uint64_t shared_load_wavefronts = 0, shared_load_wavefronts_ideal = 0;
  uint64_t shared_store_wavefronts = 0, shared_store_wavefronts_ideal = 0;
  uint64_t atomics = 0, mma = 0, mma_multiply_adds = 0, barriers = 0;
  uint64_t same_value_stores = 0;  // unordered stores of one value to one word: a note, no error
  uint64_t blocks = 0, warps = 0;

  void add(const Counters& o);
};

// Executions of each instruction of a kernel.
struct Coverage {
  std::vector<uint64_t> warps, threads;
  void resize(size_t n) {
    warps.assign(n, 0);
    threads.assign(n, 0);
  }
};

}  // namespace rnk::emu
