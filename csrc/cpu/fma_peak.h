// What the processor's multiply-adds reach at most, for benchmarks.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace rnk::cpu {

// Multiplies and adds `rounds` times in the registers of each thread. Returns the operations done
// (a multiply-add is two); the caller takes the time.
double fma_peak(int64_t rounds, int threads, ParallelFor parallel_for);

}  // namespace rnk::cpu
