// Runs one kernel over its grid on host threads.
#pragma once
#include "block.h"

namespace rnk::emu {

struct LaunchRequest {
  const Kernel* kernel = nullptr;
  Dim3 grid, block;
  uint32_t dynamic_shared = 0;
  std::vector<char> params;
  std::vector<Range> ranges;
  LaunchOptions options;
};

// Throws Error. coverage is added to (sized on first use).
Counters run_launch(LaunchRequest request, Coverage* coverage);

}  // namespace rnk::emu
