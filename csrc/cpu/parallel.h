// How a CPU kernel runs on several threads: the caller's parallel_for, handed in as a plain
// function.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
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

// Tasks [0, count) of a parallel region, each for one thread. A thread gets those of its own range
// in order, then what others have not begun, from the end. Ranges are the same in every region with
// as many tasks: what a thread wrote in one layer it reads in the next, and its cache still has it.
class TaskQueue {
 public:
  explicit TaskQueue(int64_t count) : count_(count), taken_(new std::atomic<bool>[count] {}) {}

  // The tasks of one thread.
  class Share {
   public:
    Share(TaskQueue& queue, int64_t begin, int64_t end)
        : queue_(queue), next_(begin), end_(end), last_(queue.count_) {}

    // A task that nobody else has, or count.
    int64_t take() {
      while (next_ < end_) {
        if (queue_.claim(next_++)) return next_ - 1;
      }
      while (last_ > 0) {
        if (queue_.claim(--last_)) return last_;
      }
      return queue_.count_;
    }

   private:
    TaskQueue& queue_;
    int64_t next_;
    const int64_t end_;
    int64_t last_;
  };

 private:
  bool claim(int64_t task) {
    std::atomic<bool>& taken = taken_[task];
    return !taken.load(std::memory_order_relaxed) &&
           !taken.exchange(true, std::memory_order_relaxed);
  }

  const int64_t count_;
  std::unique_ptr<std::atomic<bool>[]> taken_;
};

// Calls body(t, next) for every t < count, on whatever thread is free: for tasks of unlike length,
// or too few for each thread to get as many. Each task's result must be its own. The thread's next
// task, or one >= count, is known beforehand, so that its data can be fetched meanwhile.
template <typename Body>
void parallel_tasks_ahead(ParallelFor parallel_for, int64_t count, Body&& body) {
  TaskQueue queue(count);
  parallel(parallel_for, count, 1, [&](int64_t begin, int64_t end) {
    TaskQueue::Share share(queue, begin, end);
    for (int64_t t = share.take(), after; t < count; t = after) body(t, after = share.take());
  });
}

// The same as body(t, t + 1), where a task is not taken before it begins.
template <typename Body>
void parallel_tasks(ParallelFor parallel_for, int64_t count, Body&& body) {
  TaskQueue queue(count);
  parallel(parallel_for, count, 1, [&](int64_t begin, int64_t end) {
    TaskQueue::Share share(queue, begin, end);
    for (int64_t t; (t = share.take()) < count;) body(t, t + 1);
  });
}

}  // namespace rnk::cpu
