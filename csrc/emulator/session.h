// State of emulated CUDA in this process: which memory launches may touch, seed, what has run.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "counters.h"
#include "launch.h"
#include "register_range.h"

namespace rnk::emu {

// cudaMalloc'ed memory: every launch may touch it.
void* device_allocate(size_t bytes);
bool device_free(void* p);

std::vector<Range> current_ranges();

LaunchOptions current_options();
void set_options(const LaunchOptions& options);

struct KernelRecord {
  uint64_t launches = 0;
  Counters counters;
};
void record_launch(const std::string& kernel, const Counters& c);
std::map<std::string, KernelRecord> take_records();

}  // namespace rnk::emu
