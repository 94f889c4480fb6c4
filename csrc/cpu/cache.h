// Block sizes that follow the caches of this machine.
#pragma once

#include <cstdint>

namespace rnk::cpu {

// In floats, so that what a task works on stays in the level-2 cache of its core.
struct Blocking {
  int64_t depth;     // that a matrix product sums at once: 112 rows of it take 7/16 of the cache
  int64_t rows;      // packed rows of a task, where the depth allows it: a quarter
  int64_t winograd;  // transformed input of a task, where the depth allows it: 3/8
  int64_t pixels;    // that a filter gradient sums at once: 480 floats of each take 15/32
};

// By the level-2 cache of a core as the system tells it, 1 MiB if it does not, or by RNK_CPU_L2
// (KiB). From 1 MiB on there is nothing left to gain. Read once.
const Blocking& blocking();

}  // namespace rnk::cpu
