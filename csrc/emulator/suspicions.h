// Plain reads that race with atomics. They are forgiven when the reader's own atomic on the same
// word follows, as in the loop around atomicCAS that begins with a plain read: a stale value only
// costs a turn. Those left at the end of a launch are races.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace rnk::emu {

class Suspicions {
 public:
  void add(uint32_t uid, uint32_t lane, const void* word, std::string message);
  void forgive(uint32_t uid, uint32_t lane, const void* word);
  bool any() const { return any_.load(std::memory_order_relaxed); }
  // Throws Error("race") when one is left.
  void report();

 private:
  std::atomic<bool> any_{false};
  std::mutex mutex_;
  std::map<std::tuple<uint32_t, uint32_t, const void*>, std::string> open_;
};

}  // namespace rnk::emu
