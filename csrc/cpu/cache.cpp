#include "cache.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <unistd.h>
#endif

namespace rnk::cpu {
namespace {

constexpr int64_t kKiB = 1024;
constexpr int64_t kSmallest = 128 * kKiB, kLargest = 1024 * kKiB;

// 0: unknown.
int64_t level2_bytes() {
  if (const char* kib = std::getenv("RNK_CPU_L2")) return std::atoll(kib) * kKiB;
#if defined(__APPLE__)
  int64_t bytes = 0;
  size_t size = sizeof bytes;
  return sysctlbyname("hw.l2cachesize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
#elif defined(__linux__)
#if defined(_SC_LEVEL2_CACHE_SIZE)
  if (const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE); bytes > 0) return bytes;
#endif
  int64_t kib = 0;  // "1024K"
  std::ifstream("/sys/devices/system/cpu/cpu0/cache/index2/size") >> kib;
  return kib * kKiB;
#else
  return 0;
#endif
}

Blocking choose() {
  const int64_t known = level2_bytes();
  const int64_t bytes = known > 0 ? std::clamp(known, kSmallest, kLargest) : kLargest;
  const int64_t floats = bytes / static_cast<int64_t>(sizeof(float));
  int64_t depth = 64;  // a chunk of the packed rows
  while (depth * 2 <= floats / 256) depth *= 2;
  return {depth, floats / 4, floats * 3 / 8, floats / 1024};
}

}  // namespace

const Blocking& blocking() {
  static const Blocking chosen = choose();
  return chosen;
}

}  // namespace rnk::cpu
