#include "session.h"

#include <cstdlib>
#include <mutex>
#include <utility>

namespace rnk::emu {
namespace {

std::mutex g_mutex;
LaunchOptions g_options;
thread_local std::vector<Range> t_ranges;

std::map<uint64_t, size_t>& allocations() {
  static auto* m = new std::map<uint64_t, size_t>;
  return *m;
}
std::map<std::string, KernelRecord>& records() {
  static auto* m = new std::map<std::string, KernelRecord>;
  return *m;
}

}  // namespace

void register_range(const void* base, size_t bytes, const char* name) {
  t_ranges.push_back({reinterpret_cast<uint64_t>(base), bytes, false, false, name});
}

void clear_ranges() { t_ranges.clear(); }

void* device_allocate(size_t bytes) {
  void* p = std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
  std::lock_guard<std::mutex> hold(g_mutex);
  if (p) allocations()[reinterpret_cast<uint64_t>(p)] = bytes;
  return p;
}

bool device_free(void* p) {
  std::lock_guard<std::mutex> hold(g_mutex);
  if (!allocations().erase(reinterpret_cast<uint64_t>(p))) return false;
  std::free(p);
  return true;
}

std::vector<Range> current_ranges() {
  std::vector<Range> all = t_ranges;
  std::lock_guard<std::mutex> hold(g_mutex);
  for (const auto& [base, bytes] : allocations())
    all.push_back({base, bytes, false, false, "cudaMalloc'ed memory"});
  return all;
}

LaunchOptions current_options() {
  std::lock_guard<std::mutex> hold(g_mutex);
  return g_options;
}

void set_options(const LaunchOptions& options) {
  std::lock_guard<std::mutex> hold(g_mutex);
  g_options = options;
}

void record_launch(const std::string& kernel, const Counters& c) {
  std::lock_guard<std::mutex> hold(g_mutex);
  KernelRecord& r = records()[kernel];
  ++r.launches;
  r.counters.add(c);
}

std::map<std::string, KernelRecord> take_records() {
  std::lock_guard<std::mutex> hold(g_mutex);
  return std::exchange(records(), {});
}

}  // namespace rnk::emu
