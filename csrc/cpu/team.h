// Threads that stay together for many short parallel regions. To begin and end one costs the
// caller's parallel_for 5 us, and a network of 50 layers has 60 for a single image; here a thread
// that waits is handed its range by one store.
#pragma once

#include "parallel.h"

namespace rnk::cpu {

// Runs main() on this thread, in one region of parallel_for, whose other threads wait busily for
// what main() starts by team_parallel_for. Where fewer threads come, or none, main()'s does all.
// Within main(), torch's own ops have one thread.
void with_team(ParallelFor parallel_for, int threads, void (*main)(void* data), void* data);

template <typename Main>
void with_team(ParallelFor parallel_for, int threads, Main&& main) {
  using Plain = std::remove_reference_t<Main>;
  with_team(
      parallel_for, threads, [](void* data) { (*static_cast<Plain*>(data))(); },
      const_cast<void*>(static_cast<const void*>(&main)));
}

// A ParallelFor within main(). Rethrows what a body has thrown.
void team_parallel_for(int64_t begin, int64_t end, int64_t grain,
                       void (*body)(int64_t, int64_t, void*), void* data);

}  // namespace rnk::cpu
