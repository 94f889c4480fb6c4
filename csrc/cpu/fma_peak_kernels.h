// The kernel of fma_peak.cpp for one instruction set.
#include "lanes.h"

RNK_ISA_BEGIN

// More than the latency of a multiply-add times those that begin in a cycle; all in registers.
constexpr int kPeakSums = 12;

inline double fma_peak(int64_t rounds, int threads, ParallelFor parallel_for) {
  float* sink = scratch(Scratch::kOutput, threads * kPack);
  parallel(parallel_for, threads, 1, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) {
      const FloatVec factor = splat(0.5f), term = splat(1.0f);
      FloatVec sums[kPeakSums];
      // Unlike, or one would do for all, and unknown to the compiler: GCC left out the sum that
      // began with 2, which 0.5 * 2 + 1 does not change.
      for (int i = 0; i < kPeakSums; ++i) sums[i] = splat(static_cast<float>(rounds + i));
      for (int64_t round = 0; round < rounds; ++round) {
        RNK_UNROLL for (int i = 0; i < kPeakSums; ++i) sums[i] = sums[i] * factor + term;
      }
      for (int i = 1; i < kPeakSums; ++i) sums[0] += sums[i];
      store_vec(sink + begin * kPack, sums[0]);
    }
  });
  return 2.0 * kPeakSums * kLanes * static_cast<double>(rounds) * threads;
}

RNK_ISA_END
