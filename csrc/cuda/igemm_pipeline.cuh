// The main loop of all implicit-GEMM kernels: copies run kStages - 1 chunks ahead of the
// arithmetic, fragments one step ahead of it.
#pragma once

#include "async_copy.cuh"

namespace rnk::cuda {

// copy(stage) starts the copies of the next chunk into stage `stage`; past the end they are zeros.
// finish(stage) completes this thread's part of the chunk that was started kStages - 2 calls before
// the newest and has landed. Afterwards math holds the sums and shared memory is free.
template <int kStages, int kStageBytes, class Math, class Copy, class Finish>
__device__ inline void run_pipeline(Math& math, int chunks, uint32_t base, Copy copy,
                                    Finish finish) {
  constexpr int kAhead = kStages - 1;
  static_assert(Math::kSteps % 2 == 0, "fragments alternate between two buffers");
  for (int chunk = 0; chunk < kAhead; ++chunk) {
    copy(chunk);
    commit_copies();
  }
  wait_copies<kAhead - 1>();
  finish(0);
  __syncthreads();

  typename Math::Fragments fragments[2];
  math.load(fragments[0], base, 0);
  int reading = 0, writing = kAhead;
  for (int chunk = 0; chunk < chunks; ++chunk) {
#pragma unroll
    for (int step = 0; step < Math::kSteps; ++step) {
      if (step == 0) {
        copy(writing);
        commit_copies();
        writing = writing + 1 == kStages ? 0 : writing + 1;
      }
      if (step == Math::kSteps - 1) {
        // The next chunk, and with it the stage that the last one leaves free.
        reading = reading + 1 == kStages ? 0 : reading + 1;
        wait_copies<kAhead - 1>();
        finish(reading);
        __syncthreads();
      }
      math.load(fragments[(step + 1) % 2], base + reading * kStageBytes, (step + 1) % Math::kSteps);
      math.multiply(fragments[step % 2]);
    }
  }
  wait_copies<0>();
  __syncthreads();
}

}  // namespace rnk::cuda
