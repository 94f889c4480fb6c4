// Which convolution kernels may run, by the environment.
#pragma once

#include <cstdlib>
#include <cstring>

namespace rnk::cuda {

// RNK_CUDA_CONV=generic: the generic kernels alone; auto or unset: the fastest that serves a shape.
// Read at every call, so that a process can compare.
inline bool generic_is_wanted() {
  const char* choice = std::getenv("RNK_CUDA_CONV");
  return choice != nullptr && std::strcmp(choice, "generic") == 0;
}

// RNK_CUDA_APPLY=separate: bn_bwd_apply is a launch of its own; fused or unset: part of conv_dgrad
// where that can be.
inline bool apply_is_separate() {
  const char* choice = std::getenv("RNK_CUDA_APPLY");
  return choice != nullptr && std::strcmp(choice, "separate") == 0;
}

}  // namespace rnk::cuda
