// Merging what the threads of one column of a block (equal threadIdx.x) have, in a fixed order.
#pragma once

namespace rnk::cuda {

// Calls merge(other) on the threads with threadIdx.y < half for the thread `other` (its number in
// the block), round by round, until the threads with threadIdx.y = 0 have merged all. What a thread
// has is in shared memory; a barrier stands before every round.
template <typename Merge>
__device__ inline void merge_lanes(Merge&& merge) {
  for (unsigned lanes = blockDim.y; lanes > 1;) {
    const unsigned half = (lanes + 1) / 2;
    __syncthreads();
    if (threadIdx.y + half < lanes) merge((threadIdx.y + half) * blockDim.x + threadIdx.x);
    lanes = half;
  }
}

}  // namespace rnk::cuda
