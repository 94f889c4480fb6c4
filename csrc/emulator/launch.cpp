#include "launch.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "error.h"

namespace rnk::emu {
namespace {

constexpr uint32_t kMaxSharedBytes = 227 * 1024;
constexpr int kMaxHostThreads = 256;

void check_dimensions(const LaunchRequest& r) {
  auto text = [](const Dim3& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
  };
  const Dim3 &g = r.grid, &b = r.block;
  if (!g.x || !g.y || !g.z || g.x > 0x7FFFFFFF || g.y > 65535 || g.z > 65535)
    throw Error("argument",
                "grid " + text(g) + " is invalid: expected 1 to 2147483647, 65535, 65535 blocks");
  if (!b.x || !b.y || !b.z || b.x > 1024 || b.y > 1024 || b.z > 64 || b.count() > 1024)
    throw Error("argument",
                "block " + text(b) + " is invalid: expected 1 to 1024 threads, at most 64 in z");
  const auto& required = r.kernel->entry->required_threads;
  if (required[0] && (required[0] != b.x || required[1] != b.y || required[2] != b.z))
    throw Error("argument", "block " + text(b) + " but the kernel requires " +
                                text(Dim3{required[0], required[1], required[2]}));
  const auto& most = r.kernel->entry->max_threads;
  if (most[0] && b.count() > uint64_t{most[0]} * most[1] * most[2])
    throw Error("argument", "block " + text(b) + " exceeds the kernel's .maxntid");
  if (uint64_t{r.dynamic_shared} + r.kernel->static_shared > kMaxSharedBytes)
    throw Error("argument", "shared memory of " + std::to_string(r.dynamic_shared) + " + " +
                                std::to_string(r.kernel->static_shared) + " bytes exceeds 232448");
  if (g.count() * ((b.count() + 31) / 32) >= 0xFFFFFFF0)
    throw Error("argument", "grid " + text(g) + " has too many warps to emulate");
}

}  // namespace

Counters run_launch(LaunchRequest request, Coverage* coverage) {
  check_dimensions(request);
  Launch launch;
  launch.kernel = request.kernel;
  launch.grid = request.grid;
  launch.block = request.block;
  launch.dynamic_shared = request.dynamic_shared;
  launch.params = std::move(request.params);
  launch.params.resize(launch.kernel->param_bytes);
  launch.options = request.options;
  launch.memory.set_ranges(std::move(request.ranges));

  uint64_t blocks = launch.grid.count();
  int wanted = launch.options.threads ? launch.options.threads
                                      : static_cast<int>(std::thread::hardware_concurrency());
  auto workers =
      static_cast<int>(std::min<uint64_t>(std::clamp(wanted, 1, kMaxHostThreads), blocks));
  std::mutex mutex;
  std::exception_ptr failure;
  Counters total;
  auto work = [&] {
    try {
      Block block(launch);
      for (uint64_t i; !launch.stop && (i = launch.next_block++) < blocks;) block.run(i);
      std::lock_guard<std::mutex> hold(mutex);
      total.add(block.counters);
      if (coverage->warps.empty()) coverage->resize(launch.kernel->code.size());
      for (size_t i = 0; i < launch.kernel->code.size(); ++i) {
        coverage->warps[i] += block.coverage.warps[i];
        coverage->threads[i] += block.coverage.threads[i];
        total.warp_instructions += block.coverage.warps[i];
        total.thread_instructions += block.coverage.threads[i];
        total.by_class[static_cast<size_t>(launch.kernel->code[i].cls)] +=
            block.coverage.threads[i];
      }
    } catch (...) {
      std::lock_guard<std::mutex> hold(mutex);
      if (!failure) failure = std::current_exception();
      launch.stop = true;
    }
  };
  std::vector<std::thread> threads;
  try {
    for (int i = 1; i < workers; ++i) threads.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads to be had: fewer do the work
  }
  work();
  for (std::thread& t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
  launch.suspicions.report();
  launch.memory.count_distinct(&total.distinct_bytes_read, &total.distinct_bytes_written);
  return total;
}

}  // namespace rnk::emu
