// How a CPU kernel runs on several threads: the caller's parallel_for, handed in as a plain
// function.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace rnk::cpu {

// Calls body(b, e, data) on disjoint ranges that cover [begin, end), each of about `grain` indices
// or more, from any threads, and returns when all are done. No kernel's result depends on the cut.
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain,
                             void (*body)(int64_t, int64_t, void*), void* data);

// Elements that are worth a thread: below it, starting the thread costs more than it saves.
constexpr int64_t kGrain = 32768;

template <typename Body>
void parallel(ParallelFor parallel_for, int64_t count, int64_t grain, Body&& body) {
  if (count <= 0) return;
  if (count <= grain) return body(0, count);
  using Plain = std::remove_reference_t<Body>;
  parallel_for(
      0, count, grain,
      [](int64_t begin, int64_t end, void* data) { (*static_cast<Plain*>(data))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(t, t + 1) for every t < count, on whatever thread is free: for tasks of unlike length,
// or too few for each thread to get as many. Each task's result must be its own.
template <typename Body>
void parallel_tasks(ParallelFor parallel_for, int64_t count, Body&& body) {
  std::atomic<int64_t> next{0};
  parallel(parallel_for, count, 1, [&](int64_t, int64_t) {
    for (int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(t, t + 1);
  });
}

// The same, as body(t, next): the thread's next task, or one >= count, is known beforehand, so that
// its data can be fetched meanwhile.
template <typename Body>
void parallel_tasks_ahead(ParallelFor parallel_for, int64_t count, Body&& body) {
  std::atomic<int64_t> next{0};
  parallel(parallel_for, count, 1, [&](int64_t, int64_t) {
    const auto take = [&] { return next.fetch_add(1, std::memory_order_relaxed); };
    for (int64_t t = take(), after; t < count; t = after) body(t, after = take());
  });
}

}  // namespace rnk::cpu
