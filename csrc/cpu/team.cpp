#include "team.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rnk::cpu {
namespace {

// Waits a little; lets others have the processor where it takes long.
class Patience {
 public:
  void wait() {
    if (++turns_ % kTurns == 0) return std::this_thread::yield();
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
  }

 private:
  static constexpr int kTurns = 4096;
  int turns_ = 0;
};

class Team {
 public:
  explicit Team(int threads) : places_(threads) {}

  // A thread's time in the team: until the end, whatever it is handed.
  void serve(int place) {
    Patience patience;
    while (!ended_.load(std::memory_order_acquire)) {
      if (take(place)) {
        run(place);
        done_.fetch_add(1, std::memory_order_release);
        patience = {};
      } else {
        patience.wait();
      }
    }
  }

  void end() { ended_.store(true, std::memory_order_release); }

  void parallel_for(int64_t begin, int64_t end, int64_t grain,
                    void (*body)(int64_t, int64_t, void*), void* data) {
    const int64_t count = end - begin, most = (count + grain - 1) / grain;
    const int64_t ranges = std::min<int64_t>(places_.size(), most);
    job_ = {begin, end, (count + ranges - 1) / ranges, body, data};
    done_.store(0, std::memory_order_relaxed);
    for (int64_t i = 1; i < ranges; ++i) places_[i].ready.store(true, std::memory_order_release);
    run(0);
    int64_t others = ranges - 1;
    for (int64_t i = 1; i < ranges; ++i) {  // of threads that have not come
      if (take(i)) run(i), --others;
    }
    for (Patience patience; done_.load(std::memory_order_acquire) < others;) patience.wait();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  struct alignas(64) Place {
    std::atomic<bool> ready{false};  // whether its range waits for a thread
  };

  struct Job {
    int64_t begin, end, share;
    void (*body)(int64_t, int64_t, void*);
    void* data;
  };

  bool take(int64_t place) {
    std::atomic<bool>& ready = places_[place].ready;
    return ready.load(std::memory_order_relaxed) &&
           ready.exchange(false, std::memory_order_acquire);
  }

  void run(int64_t place) {
    const int64_t first = job_.begin + place * job_.share;
    const int64_t last = std::min(job_.end, first + job_.share);
    try {
      if (first < last) job_.body(first, last, job_.data);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  std::vector<Place> places_;  // the first one's thread runs main()
  Job job_{};
  std::atomic<int64_t> done_{0};  // ranges that others have run
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

thread_local Team* team = nullptr;  // of the main() that this thread runs

}  // namespace

void with_team(ParallelFor parallel_for, int threads, void (*main)(void* data), void* data) {
  Team together(std::max(threads, 1));
  std::exception_ptr error;  // parallel_for may know only how to tell that there was one
  const auto first = [&] {
    Team* const before = std::exchange(team, &together);
    try {
      main(data);
    } catch (...) {
      error = std::current_exception();
    }
    team = before;
    together.end();
  };
  parallel(parallel_for, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end; ++place) {
      place == 0 ? first() : together.serve(static_cast<int>(place));
    }
  });
  if (error) std::rethrow_exception(error);
}

void team_parallel_for(int64_t begin, int64_t end, int64_t grain,
                       void (*body)(int64_t, int64_t, void*), void* data) {
  if (begin < end) team->parallel_for(begin, end, std::max<int64_t>(grain, 1), body, data);
}

}  // namespace rnk::cpu
